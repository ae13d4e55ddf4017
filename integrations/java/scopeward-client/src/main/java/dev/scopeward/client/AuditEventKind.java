package dev.scopeward.client;

/** The kinds of events that a reader may ask for. */
public enum AuditEventKind {
    /** A client got a scope that it did not ask for or did not hold. */
    EXPANSION,
    /** A request was denied. */
    DENIAL,
    /** A new policy was accepted or rejected. */
    POLICY_CHANGE,
    /** The log was opened in the place of a damaged or missing one. */
    LOG_OPENED,
    /** New rules about who may call were accepted or rejected. */
    ACCESS_CHANGE
}
