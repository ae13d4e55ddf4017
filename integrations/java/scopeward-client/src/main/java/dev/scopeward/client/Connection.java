package dev.scopeward.client;

import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptors;
import io.grpc.ConnectivityState;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** The channel of one client: what it is told, when it is made again, and how it comes back after an outage. */
final class Connection implements AutoCloseable {
    /** Only UNAVAILABLE is safe to ask again and passes by itself. The deadline holds for all attempts together. */
    private static final Map<String, ?> SERVICE_CONFIG = Map.of(
            "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
            "healthCheckConfig", Map.of("serviceName", ""),
            "methodConfig", List.of(Map.of(
                    "name", List.of(
                            Map.of("service", "scopeward.v1.ScopePolicyService"),
                            Map.of("service", "scopeward.v1.PolicyStatusService", "method", "GetPolicyStatus")),
                    "retryPolicy", Map.of(
                            "maxAttempts", 3.0,
                            "initialBackoff", "0.05s",
                            "maxBackoff", "0.5s",
                            "backoffMultiplier", 2.0,
                            "retryableStatusCodes", List.of("UNAVAILABLE")))));

    private static final Metadata.Key<String> AUTHORIZATION = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private static final Duration TICK = Duration.ofSeconds(1);
    private static final Duration FIRST_CONNECTION = Duration.ofSeconds(5);

    private final Endpoint endpoint;
    private final Settings settings;
    private final ScheduledExecutorService ticker;
    private ManagedChannel channel;
    private List<Object> channelFiles;
    private boolean isClosed;

    /**
     * What a caller may set. Files and texts are null where they are not set.
     *
     * @param caFile who issues the server's certificate
     * @param certFile the certificate to show
     * @param privateKeyFile its key
     * @param serverName the name that the server's certificate must have
     * @param token a bearer token
     * @param tokenFile a file with one
     */
    record Settings(
            Path caFile, Path certFile, Path privateKeyFile, String serverName, String token, Path tokenFile) {}

    Connection(Endpoint endpoint, Settings settings) {
        if (settings.token != null && settings.tokenFile != null) {
            throw new IllegalArgumentException("a token is given as `token` or as `tokenFile`, not as both");
        }
        if ((settings.token != null || settings.tokenFile != null) && !endpoint.isTls() && !endpoint.isLocal()) {
            throw new IllegalArgumentException("a token does not travel in plaintext to another machine; use https://");
        }
        if ((settings.certFile == null) != (settings.privateKeyFile == null)) {
            throw new IllegalArgumentException("a certificate and its private key are given together");
        }
        if (!endpoint.isTls() && (settings.caFile != null || settings.certFile != null)) {
            throw new IllegalArgumentException("TLS files are for https:// targets");
        }
        if (endpoint.isTls() && endpoint.addresses() > 1 && settings.serverName == null) {
            throw new IllegalArgumentException("several https:// addresses need the `serverName` that their certificates have");
        }
        this.endpoint = endpoint;
        this.settings = settings;
        this.ticker = Executors.newSingleThreadScheduledExecutor(run -> {
            Thread thread = new Thread(run, "scopeward-reconnect");
            thread.setDaemon(true);
            return thread;
        });
        ticker.scheduleWithFixedDelay(this::keepConnected, 0, TICK.toMillis(), TimeUnit.MILLISECONDS);
        warmUp();
    }

    /**
     * Waits until the server is connected or cannot be, at most {@link #FIRST_CONNECTION}.
     *
     * <p>A JVM takes up to a second to load the classes of a first call, and that would be the time of somebody's login.
     */
    private void warmUp() {
        ManagedChannel open;
        try {
            open = open(QuestionKind.OTHER);
        } catch (UnavailableException ignored) {
            // The next call says so.
            return;
        }
        CountDownLatch settled = new CountDownLatch(1);
        watch(open, settled);
        Wire.warmUp();
        try {
            boolean ignored = settled.await(FIRST_CONNECTION.toNanos(), TimeUnit.NANOSECONDS);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private static void watch(ManagedChannel channel, CountDownLatch settled) {
        ConnectivityState state = channel.getState(true);
        if (state == ConnectivityState.IDLE || state == ConnectivityState.CONNECTING) {
            channel.notifyWhenStateChanged(state, () -> watch(channel, settled));
        } else {
            settled.countDown();
        }
    }

    Endpoint endpoint() {
        return endpoint;
    }

    /** Where calls go, with the token of now. */
    Channel channel(QuestionKind kind) {
        ManagedChannel open = open(kind);
        String token = token(kind);
        if (token == null) {
            return open;
        }
        Metadata headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + token);
        return ClientInterceptors.intercept(open, MetadataUtils.newAttachHeadersInterceptor(headers));
    }

    /** Ends calls and streams that are open, and refuses new ones. */
    @Override
    public void close() {
        ticker.shutdownNow();
        synchronized (this) {
            isClosed = true;
            if (channel != null) {
                channel.shutdownNow();
            }
        }
    }

    private String token(QuestionKind kind) {
        try {
            String token = settings.tokenFile == null ? settings.token : Files.readString(settings.tokenFile, StandardCharsets.US_ASCII);
            return token == null ? null : token.strip();
        } catch (IOException error) {
            throw unreadable(kind, "token file", error);
        }
    }

    private synchronized ManagedChannel open(QuestionKind kind) {
        if (isClosed) {
            throw new UnavailableException(kind, "CANCELLED", "the client is closed", ErrorDetails.NONE, null);
        }
        try {
            List<Object> files = files();
            if (channel == null || !files.equals(channelFiles)) {
                ManagedChannel next = connect();
                if (channel != null) {
                    // Calls that are open end by themselves.
                    channel.shutdown();
                }
                channel = next;
                channelFiles = files;
            }
            return channel;
        } catch (IOException | IllegalArgumentException | IllegalStateException error) {
            throw unreadable(kind, "TLS file", error);
        }
    }

    private static UnavailableException unreadable(QuestionKind kind, String what, Exception error) {
        return new UnavailableException(
                kind, "UNAUTHENTICATED", "could not read the " + what + ": " + error, ErrorDetails.NONE, error);
    }

    /** Changes when a TLS file does. */
    private List<Object> files() throws IOException {
        List<Object> files = new ArrayList<>();
        for (Path file : Stream.of(settings.caFile, settings.certFile, settings.privateKeyFile).filter(Objects::nonNull).toList()) {
            BasicFileAttributes attributes = Files.readAttributes(file, BasicFileAttributes.class);
            files.add(List.of(String.valueOf(attributes.fileKey()), attributes.lastModifiedTime(), attributes.size()));
        }
        return files;
    }

    private ManagedChannel connect() throws IOException {
        ChannelCredentials credentials = credentials();
        ManagedChannelBuilder<?> builder = endpoint.target().startsWith("unix:")
                ? Grpc.newChannelBuilder(endpoint.target(), credentials)
                : NettyChannelBuilder.forTarget(endpoint.target(), credentials)
                        .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, (int) TICK.toMillis());
        if (settings.serverName != null) {
            builder.overrideAuthority(settings.serverName);
        } else if (endpoint.target().startsWith("unix:")) {
            // The path would be sent as authority, which is none.
            builder.overrideAuthority("localhost");
        }
        return builder.defaultServiceConfig(SERVICE_CONFIG)
                .disableServiceConfigLookUp()
                .enableRetry()
                // The service is a neighbour; a proxy for the way to the internet is none for it.
                .proxyDetector(address -> null)
                // Notices a peer that is gone without a word, while a call or a stream is open.
                .keepAliveTime(30, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .userAgent("scopeward-java")
                .build();
    }

    private ChannelCredentials credentials() throws IOException {
        if (!endpoint.isTls()) {
            return InsecureChannelCredentials.create();
        }
        TlsChannelCredentials.Builder builder = TlsChannelCredentials.newBuilder();
        if (settings.caFile != null) {
            builder.trustManager(settings.caFile.toFile());
        }
        if (settings.certFile != null) {
            builder.keyManager(settings.certFile.toFile(), settings.privateKeyFile.toFile());
        }
        return builder.build();
    }

    /**
     * Connects, at first and whenever the channel is idle, and ends its back-off, which grows to two minutes and for which there is no
     * setting. So a server that is back is asked again within a second, and the first call of a process does not wait.
     */
    private void keepConnected() {
        try {
            ManagedChannel open = open(QuestionKind.OTHER);
            if (open.getState(true) != ConnectivityState.READY || endpoint.addresses() > 1) {
                open.resetConnectBackoff();
            }
        } catch (UnavailableException ignored) {
            // The next call says so.
        }
    }
}
