package dev.scopeward.client;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.Timestamp;
import com.google.protobuf.util.JsonFormat;
import dev.scopeward.v1.AuditServiceGrpc;
import dev.scopeward.v1.AuditStart;
import dev.scopeward.v1.Gap;
import dev.scopeward.v1.StreamAuditEventsRequest;
import dev.scopeward.v1.StreamAuditEventsResponse;
import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** Reads the audit log: what to ask, what a message means, when to reconnect and when to stop. */
final class AuditReader {
    private static final Duration FIRST_DELAY = Duration.ofMillis(100);
    private static final Duration LAST_DELAY = Duration.ofSeconds(1);

    private final AuditQuestion question;
    private final Consumer<AuditRecord> handler;
    private AuditPosition position;
    private Duration delay = FIRST_DELAY;

    AuditReader(AuditQuestion question, Consumer<AuditRecord> handler) {
        this.question = question;
        this.handler = handler;
        this.position = question.cursor() == null ? null : question.cursor().load();
    }

    void read(Supplier<Channel> channel) throws InterruptedException {
        while (true) {
            Duration wait;
            try (MessageStream<StreamAuditEventsResponse> stream =
                    MessageStream.open(channel.get(), AuditServiceGrpc.getStreamAuditEventsMethod(), request())) {
                readToEnd(stream);
                wait = nextDelay(null);
            } catch (StatusRuntimeException error) {
                wait = delayAfter(error);
            }
            if (!question.isFollowing()) {
                return;
            }
            Thread.sleep(wait.toMillis());
        }
    }

    private StreamAuditEventsRequest request() {
        StreamAuditEventsRequest.Builder request = StreamAuditEventsRequest.newBuilder()
                .addAllAudiences(Wire.texts(question.audiences()))
                .setFollow(question.isFollowing());
        question.kinds().stream()
                .map(kind -> dev.scopeward.v1.AuditEventKind.valueOf("AUDIT_EVENT_KIND_" + kind.name()))
                .forEach(request::addKinds);
        if (position != null) {
            request.setLogId(position.logId()).setAfterSequence(position.sequence());
        } else if (question.startTime() != null) {
            request.setStartTime(Timestamp.newBuilder()
                    .setSeconds(question.startTime().getEpochSecond())
                    .setNanos(question.startTime().getNano()));
        } else {
            request.setPosition(question.isLatest() ? AuditStart.AUDIT_START_LATEST : AuditStart.AUDIT_START_EARLIEST);
        }
        return request.build();
    }

    private void readToEnd(MessageStream<StreamAuditEventsResponse> stream) throws InterruptedException {
        // The first checkpoint names the newest record, before anything was sent: a place to resume from only for who starts there.
        boolean isPlace = question.isLatest() && position == null;
        for (StreamAuditEventsResponse message = stream.next(); message != null; message = stream.next()) {
            delay = FIRST_DELAY;
            switch (message.getMessageCase()) {
                case EVENT -> {
                    AuditEvent event = event(message.getEvent());
                    handler.accept(event);
                    move(new AuditPosition(event.logId(), event.sequence()));
                }
                case GAP -> {
                    AuditGap gap = gap(message.getGap());
                    handler.accept(gap);
                    move(new AuditPosition(gap.logId(), gap.sequence()));
                }
                case CHECKPOINT -> {
                    if (isPlace) {
                        move(new AuditPosition(
                                message.getCheckpoint().getLogId(), message.getCheckpoint().getDurableSequence()));
                    }
                }
                case MESSAGE_NOT_SET -> { }
            }
            isPlace = true;
        }
    }

    private void move(AuditPosition next) {
        if (next.equals(position)) {
            return;
        }
        if (question.cursor() != null) {
            question.cursor().save(next);
        }
        position = next;
    }

    private Duration delayAfter(StatusRuntimeException error) {
        Status status = error.getStatus();
        String message = status.getDescription() == null ? "no details" : status.getDescription();
        ErrorDetails details = ErrorDetails.of(error);
        if (status.getCode() != Status.Code.UNAVAILABLE) {
            throw new AuditStoppedException(status.getCode().name(), message, details, error);
        }
        if (!question.isFollowing()) {
            throw new UnavailableException(QuestionKind.OTHER, status.getCode().name(), message, details, error);
        }
        return nextDelay(details.retryDelay());
    }

    /** What the server says, or twice as long as before, up to a second. */
    private Duration nextDelay(Duration said) {
        Duration now = delay;
        delay = delay.multipliedBy(2).compareTo(LAST_DELAY) < 0 ? delay.multipliedBy(2) : LAST_DELAY;
        return said == null ? now : said;
    }

    private static AuditEvent event(dev.scopeward.v1.AuditEvent event) {
        JsonObject json = json(event);
        json.addProperty("prevHash", hex(event.getPrevHash()));
        json.addProperty("hash", hex(event.getHash()));
        return new AuditEvent(
                event.getLogId(),
                event.getSequence(),
                event.getEventId(),
                Wire.instant(event.getEventTime()),
                Wire.enumName("AUDIT_EVENT_KIND_", event.getKind(), event.getKindValue()),
                event.getDecisionId(),
                event.getMethod(),
                Wire.map(event.getAudiencesList(), audience -> audience),
                Wire.map(event.getAskedAudiencesList(), audience -> audience),
                event.hasClient() ? Wire.client(event.getClient()) : null,
                event.getClientTruncated(),
                event.hasRequestedScope() ? event.getRequestedScope() : null,
                event.hasRegisteredScope() ? event.getRegisteredScope() : null,
                event.hasGrantedScope() ? event.getGrantedScope() : null,
                Wire.enumName("TOKEN_GRANT_", event.getGrant(), event.getGrantValue()),
                event.getEffectiveScope(),
                Wire.added(event.getAddedList()),
                Wire.refused(event.getRefusedList()),
                Wire.enumName("REASON_", event.getReason(), event.getReasonValue()),
                Wire.policy(event.getPolicy()),
                event.hasPolicyChange() ? change(event.getPolicyChange()) : null,
                event.hasLogOpened() ? opened(event.getLogOpened()) : null,
                event.getCaller().getName(),
                event.getCaller().getAuthenticatedBy(),
                event.getPeer(),
                event.getTraceId(),
                Wire.unsigned(event.getAttempt()),
                event.getCorrelationId(),
                json.toString());
    }

    private static PolicyChange change(dev.scopeward.v1.PolicyChange change) {
        return new PolicyChange(
                change.getAccepted(),
                change.getPreviousDigest(),
                Wire.unsigned(change.getFindingCount()),
                Wire.map(change.getChangesList(), text -> text),
                Wire.unsigned(change.getChangeCount()),
                Wire.unsigned(change.getWideningCount()));
    }

    private static LogOpened opened(dev.scopeward.v1.LogOpened opened) {
        return new LogOpened(opened.getPreviousLogId(), opened.getPreviousSequence(), opened.getCause());
    }

    private static AuditGap gap(Gap gap) {
        JsonObject json = new JsonObject();
        json.add("gap", json(gap));
        return new AuditGap(
                gap.getLogId(),
                gap.getSequence(),
                gap.getCount(),
                gap.getReason(),
                Wire.instant(gap.getFirstTime()),
                Wire.instant(gap.getLastTime()),
                Map.copyOf(gap.getReasonCountsMap()),
                json.toString());
    }

    private static JsonObject json(MessageOrBuilder message) {
        try {
            return JsonParser.parseString(JsonFormat.printer().alwaysPrintFieldsWithNoPresence().print(message)).getAsJsonObject();
        } catch (InvalidProtocolBufferException error) {
            // Only a google.protobuf.Any of an unknown type is not printed, and these messages have none.
            throw new IllegalStateException(error);
        }
    }

    private static String hex(ByteString bytes) {
        return HexFormat.of().formatHex(bytes.toByteArray());
    }
}
