package dev.scopeward.spring;

/** The application does not start, since its authorization server would not ask Scopeward. */
final class NotAskingException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final String action;

    NotAskingException(String message, String action) {
        super(message);
        this.action = action;
    }

    NotAskingException(String message, String action, Throwable cause) {
        super(message, cause);
        this.action = action;
    }

    /** Returns what a person can do. */
    String action() {
        return action;
    }
}
