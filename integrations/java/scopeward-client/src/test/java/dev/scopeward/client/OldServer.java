package dev.scopeward.client;

import dev.scopeward.v1.CheckAuthorizeScopesRequest;
import dev.scopeward.v1.CheckAuthorizeScopesResponse;
import dev.scopeward.v1.ExpandRegistrationScopesRequest;
import dev.scopeward.v1.ExpandRegistrationScopesResponse;
import dev.scopeward.v1.ScopePolicyServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;

/** A server from before some fields: passes questions to the real one, and changes its answers. */
final class OldServer implements AutoCloseable {
    final AtomicInteger calls = new AtomicInteger();
    private final ManagedChannel channel;
    private final Server server;
    private final HealthStatusManager health = new HealthStatusManager();

    OldServer(
            String target,
            Consumer<ExpandRegistrationScopesResponse.Builder> registration,
            Consumer<CheckAuthorizeScopesResponse.Builder> authorize)
            throws IOException {
        channel = Grpc.newChannelBuilder("dns:///" + target, InsecureChannelCredentials.create()).build();
        ScopePolicyServiceGrpc.ScopePolicyServiceBlockingStub real = ScopePolicyServiceGrpc.newBlockingStub(channel);
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(health.getHealthService())
                .addService(new ScopePolicyServiceGrpc.ScopePolicyServiceImplBase() {
                    @Override
                    public void expandRegistrationScopes(
                            ExpandRegistrationScopesRequest question, StreamObserver<ExpandRegistrationScopesResponse> observer) {
                        calls.incrementAndGet();
                        try {
                            ExpandRegistrationScopesResponse.Builder answer = real.expandRegistrationScopes(question).toBuilder();
                            registration.accept(answer);
                            observer.onNext(answer.build());
                            observer.onCompleted();
                        } catch (StatusRuntimeException error) {
                            observer.onError(error);
                        }
                    }

                    @Override
                    public void checkAuthorizeScopes(
                            CheckAuthorizeScopesRequest question, StreamObserver<CheckAuthorizeScopesResponse> observer) {
                        calls.incrementAndGet();
                        try {
                            CheckAuthorizeScopesResponse.Builder answer = real.checkAuthorizeScopes(question).toBuilder();
                            authorize.accept(answer);
                            observer.onNext(answer.build());
                            observer.onCompleted();
                        } catch (StatusRuntimeException error) {
                            observer.onError(error);
                        }
                    }
                })
                .build()
                .start();
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    void health(ServingStatus status) {
        health.setStatus("", status);
    }

    @Override
    public void close() {
        server.shutdownNow();
        channel.shutdownNow();
    }
}
