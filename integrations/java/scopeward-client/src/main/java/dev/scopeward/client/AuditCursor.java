package dev.scopeward.client;

/** Keeps where a reader is. Write one of your own to keep it in a database, in one transaction with what you store. */
public interface AuditCursor {
    /**
     * Returns the position that was kept.
     *
     * @return null at first
     */
    AuditPosition load();

    /**
     * Replaces it. Called after an event was handled.
     *
     * @param position the place after that event
     */
    void save(AuditPosition position);
}
