package dev.scopeward.client;

import java.time.Instant;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/** Where to begin in the audit log and what to read of it. */
public final class AuditQuestion {
    private final AuditCursor cursor;
    private final boolean isLatest;
    private final Instant startTime;
    private final Set<AuditEventKind> kinds;
    private final List<String> audiences;
    private final boolean isFollowing;

    private AuditQuestion(Builder builder) {
        cursor = builder.cursor;
        isLatest = builder.isLatest;
        startTime = builder.startTime;
        kinds = builder.kinds.isEmpty() ? Set.of() : Set.copyOf(builder.kinds);
        audiences = List.copyOf(builder.audiences);
        isFollowing = builder.isFollowing;
    }

    /**
     * Starts with: everything that is kept, then what comes, without a cursor.
     *
     * @return a builder
     */
    public static Builder builder() {
        return new Builder();
    }

    AuditCursor cursor() {
        return cursor;
    }

    boolean isLatest() {
        return isLatest;
    }

    Instant startTime() {
        return startTime;
    }

    Set<AuditEventKind> kinds() {
        return kinds;
    }

    List<String> audiences() {
        return audiences;
    }

    boolean isFollowing() {
        return isFollowing;
    }

    /** Sets the members of a question by name. */
    public static final class Builder {
        private AuditCursor cursor;
        private boolean isLatest;
        private Instant startTime;
        private final Set<AuditEventKind> kinds = EnumSet.noneOf(AuditEventKind.class);
        private List<String> audiences = List.of();
        private boolean isFollowing = true;

        private Builder() {}

        /**
         * Sets where to continue. What the cursor has counts before any other start.
         *
         * @param cursor such as a {@link FileCursor}
         * @return this
         */
        public Builder cursor(AuditCursor cursor) {
            this.cursor = cursor;
            return this;
        }

        /**
         * Begins with what comes from now on.
         *
         * @return this
         */
        public Builder fromLatest() {
            this.isLatest = true;
            this.startTime = null;
            return this;
        }

        /**
         * Begins with the first event of this time or later.
         *
         * @param time the time
         * @return this
         */
        public Builder fromTime(Instant time) {
            this.startTime = time;
            this.isLatest = false;
            return this;
        }

        /**
         * Reads these kinds only. Gaps come always.
         *
         * @param first one kind
         * @param more others
         * @return this
         */
        public Builder kinds(AuditEventKind first, AuditEventKind... more) {
            kinds.add(first);
            kinds.addAll(List.of(more));
            return this;
        }

        /**
         * Reads only events that name one of these audiences.
         *
         * @param audiences at most 16 of at most 2048 bytes; none means all
         * @return this
         */
        public Builder audiences(List<String> audiences) {
            this.audiences = audiences;
            return this;
        }

        /**
         * Ends after the newest event instead of waiting for more.
         *
         * @return this
         */
        public Builder untilNewest() {
            this.isFollowing = false;
            return this;
        }

        /**
         * Makes the question.
         *
         * @return the question
         */
        public AuditQuestion build() {
            return new AuditQuestion(this);
        }
    }
}
