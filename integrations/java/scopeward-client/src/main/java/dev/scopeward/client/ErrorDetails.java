package dev.scopeward.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Map;

/** What the service says of an error next to its code: the {@code ErrorInfo} and the {@code RetryInfo}. The delay may be null. */
record ErrorDetails(String reason, Map<String, String> metadata, Duration retryDelay) {
    static final ErrorDetails NONE = new ErrorDetails("", Map.of(), null);

    /** Reads the trailers of an error. What is not understood is left out. */
    static ErrorDetails of(Throwable error) {
        com.google.rpc.Status status = StatusProto.fromThrowable(error);
        ErrorDetails details = NONE;
        if (status == null) {
            return details;
        }
        try {
            for (Any detail : status.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    ErrorInfo info = detail.unpack(ErrorInfo.class);
                    details = new ErrorDetails(info.getReason(), Map.copyOf(info.getMetadataMap()), details.retryDelay);
                } else if (detail.is(RetryInfo.class)) {
                    com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    details = new ErrorDetails(
                            details.reason, details.metadata, Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
                }
            }
        } catch (InvalidProtocolBufferException | ArithmeticException ignored) {
            return details;
        }
        return details;
    }
}
