package dev.scopeward.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** An open call that sends messages, read by one thread. At most {@link #AHEAD} messages wait here. */
final class MessageStream<A> implements AutoCloseable {
    /** A checkpoint or a status comes every 15 or 30 seconds, so a stream that is silent for longer than this is dead. */
    static volatile Duration silence = Duration.ofSeconds(60);

    private static final int AHEAD = 16;

    private final ClientCall<?, A> call;
    private final BlockingQueue<Step<A>> steps = new LinkedBlockingQueue<>();

    /** A message, or how the stream ended. */
    private record Step<A>(A message, StatusRuntimeException end) {}

    private MessageStream(ClientCall<?, A> call) {
        this.call = call;
    }

    static <Q, A> MessageStream<A> open(Channel channel, MethodDescriptor<Q, A> method, Q question) {
        ClientCall<Q, A> call = channel.newCall(method, CallOptions.DEFAULT);
        MessageStream<A> stream = new MessageStream<>(call);
        call.start(new ClientCall.Listener<A>() {
            @Override
            public void onMessage(A message) {
                stream.steps.add(new Step<>(message, null));
            }

            @Override
            public void onClose(Status status, Metadata trailers) {
                stream.steps.add(new Step<>(null, status.isOk() ? null : status.asRuntimeException(trailers)));
            }
        }, new Metadata());
        call.request(AHEAD);
        call.sendMessage(question);
        call.halfClose();
        return stream;
    }

    /**
     * The next message, or null at the end of a stream that ended well.
     *
     * @throws StatusRuntimeException if it ended otherwise, with UNAVAILABLE if it was silent
     */
    A next() throws InterruptedException {
        Step<A> step = steps.poll(silence.toMillis(), TimeUnit.MILLISECONDS);
        if (step == null) {
            throw Status.UNAVAILABLE.withDescription("the stream was silent").asRuntimeException();
        }
        if (step.end != null) {
            throw step.end;
        }
        if (step.message != null) {
            call.request(1);
        }
        return step.message;
    }

    @Override
    public void close() {
        call.cancel("closed by the reader", null);
    }
}
