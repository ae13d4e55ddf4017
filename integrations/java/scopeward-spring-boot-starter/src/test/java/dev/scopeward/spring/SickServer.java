package dev.scopeward.spring;

import dev.scopeward.v1.CheckAuthorizeScopesRequest;
import dev.scopeward.v1.CheckAuthorizeScopesResponse;
import dev.scopeward.v1.ExpandRegistrationScopesRequest;
import dev.scopeward.v1.ExpandRegistrationScopesResponse;
import dev.scopeward.v1.ScopePolicyServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;

/** A service that answers with what it is told, such as one of another version: with a member missing. */
final class SickServer implements AutoCloseable {
    private final Server server;
    volatile ExpandRegistrationScopesResponse registration;
    volatile CheckAuthorizeScopesResponse authorize;

    SickServer() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new HealthStatusManager().getHealthService())
                .addService(new ScopePolicyServiceGrpc.ScopePolicyServiceImplBase() {
                    @Override
                    public void expandRegistrationScopes(
                            ExpandRegistrationScopesRequest question, StreamObserver<ExpandRegistrationScopesResponse> observer) {
                        answer(registration, observer);
                    }

                    @Override
                    public void checkAuthorizeScopes(
                            CheckAuthorizeScopesRequest question, StreamObserver<CheckAuthorizeScopesResponse> observer) {
                        answer(authorize, observer);
                    }
                })
                .build()
                .start();
    }

    private static <A> void answer(A answer, StreamObserver<A> observer) {
        if (answer == null) {
            observer.onError(Status.INTERNAL.withDescription("secret cause").asRuntimeException());
            return;
        }
        observer.onNext(answer);
        observer.onCompleted();
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    @Override
    public void close() {
        server.shutdownNow();
    }
}
