package dev.scopeward.client;

import java.util.Map;

/**
 * The audit log cannot be read on by itself; a person has to look.
 *
 * <p>By {@link #code()}: {@code OUT_OF_RANGE}, retention has deleted what the cursor wants ({@code oldest_sequence} and
 * {@code newest_sequence} are in {@link #metadata()}); {@code INVALID_ARGUMENT} with {@code LOG_ID_FOREIGN}, the log is another one;
 * {@code DATA_LOSS}, the hash chain is broken; any other code that waiting does not change.
 *
 * @serial exclude
 */
public final class AuditStoppedException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final String code;
    private final String reason;
    private final transient Map<String, String> metadata;

    AuditStoppedException(String code, String message, ErrorDetails details, Throwable cause) {
        super(code + ": " + message, cause);
        this.code = code;
        this.reason = details.reason();
        this.metadata = details.metadata();
    }

    /**
     * Returns the gRPC code.
     *
     * @return such as {@code OUT_OF_RANGE}
     */
    public String code() {
        return code;
    }

    /**
     * Returns the stable reason of the service.
     *
     * @return such as {@code SEQUENCE_OUT_OF_RANGE}; empty if the service did not say
     */
    public String reason() {
        return reason;
    }

    /**
     * Returns what belongs to the reason.
     *
     * @return such as {@code oldest_sequence}; may be empty
     */
    public Map<String, String> metadata() {
        return metadata == null ? Map.of() : metadata;
    }
}
