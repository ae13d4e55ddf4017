package scopeward

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

// AuditQuery says which events of the audit log are wanted, and from where on.
type AuditQuery struct {
	// Cursor keeps where the reader is, such as FileCursor("audit.cursor"). Without one, or if it is empty, Start counts.
	Cursor Cursor

	// Start is where to begin; the zero value is the oldest event. StartTime, if it is set, counts in its place.
	Start     scopewardv1.AuditStart
	StartTime time.Time

	// Kinds has the kinds that are wanted; empty means all. Gaps come always.
	Kinds []scopewardv1.AuditEventKind

	// Audiences has those whose events are wanted; empty means all.
	Audiences []string

	// Follow waits for new events, and for what passes by itself: a server that restarts, a connection that breaks. Without it the
	// events end after the newest one, or with an [*Unavailable].
	Follow bool
}

// AuditRecord is one record of the audit log: one of the two is set.
type AuditRecord struct {
	// Event is an audited decision or change of the policy. Its event_id is the same if it is delivered again.
	Event *scopewardv1.AuditEvent

	// Gap stands for events that could not be recorded. Alert on it.
	Gap *scopewardv1.Gap
}

// Position returns the place after the record.
func (r AuditRecord) Position() Position {
	if r.Gap != nil {
		return Position{r.Gap.GetLogId(), r.Gap.GetSequence()}
	}
	return Position{r.Event.GetLogId(), r.Event.GetSequence()}
}

// MarshalJSON returns the members of the line that `scopeward audit tail --output json` prints: defaults included, hashes in
// hexadecimal digits, a gap in a member gap.
func (r AuditRecord) MarshalJSON() ([]byte, error) {
	if r.Gap != nil {
		members, err := jsonMembers(r.Gap)
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"gap": members})
	}
	members, err := jsonMembers(r.Event)
	if err != nil {
		return nil, err
	}
	return json.Marshal(members)
}

func jsonMembers(message proto.Message) (map[string]any, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, err
	}
	for _, name := range []string{"prevHash", "hash"} {
		if encoded, isText := members[name].(string); isText {
			hash, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				return nil, err
			}
			members[name] = hex.EncodeToString(hash)
		}
	}
	return members, nil
}

// AuditEvents returns the events of the audit log from the cursor on, at least once each.
//
// The cursor moves past an event when the loop asks for the next one; a loop that is left while it handles an event gets that
// event again. An error is the last item: [*AuditStopped] if only a person can help, such as a cursor that is older than what
// is kept, the error of the cursor, or that of the context.
//
// A client of several addresses has no audit events: each server has a log of its own.
func (c *Client) AuditEvents(ctx context.Context, query AuditQuery) iter.Seq2[AuditRecord, error] {
	return func(yield func(AuditRecord, error) bool) {
		reader, err := newAuditReader(c, query)
		for err == nil {
			var isOver bool
			if isOver, err = reader.read(ctx, yield); isOver {
				return
			}
		}
		yield(AuditRecord{}, err)
	}
}

// auditSilence ends a stream that is silent for longer: a checkpoint comes every 15 seconds.
var auditSilence = time.Minute

const (
	firstAuditDelay = 100 * time.Millisecond
	lastAuditDelay  = time.Second
)

// auditReader is where a reader is, and what the messages of a stream mean for that.
type auditReader struct {
	client   *Client
	query    AuditQuery
	position *Position
	delay    time.Duration
}

func newAuditReader(client *Client, query AuditQuery) (*auditReader, error) {
	if len(client.endpoint.addresses) != 1 {
		return nil, errors.New("each server has an audit log of its own: read them one by one, with a cursor for each")
	}
	reader := &auditReader{client: client, query: query, delay: firstAuditDelay}
	if query.Cursor == nil {
		return reader, nil
	}
	position, err := query.Cursor.Load()
	reader.position = position
	return reader, err
}

// request returns what to ask for, from the position on.
func (r *auditReader) request() *scopewardv1.StreamAuditEventsRequest {
	request := &scopewardv1.StreamAuditEventsRequest{
		Kinds: r.query.Kinds, Audiences: wireTexts(r.query.Audiences), Follow: r.query.Follow,
	}
	switch {
	case r.position != nil:
		request.LogId = r.position.LogID
		request.Start = &scopewardv1.StreamAuditEventsRequest_AfterSequence{AfterSequence: r.position.Sequence}
	case !r.query.StartTime.IsZero():
		start := timestamppb.New(r.query.StartTime)
		request.Start = &scopewardv1.StreamAuditEventsRequest_StartTime{StartTime: start}
	default:
		start := r.query.Start
		if start == scopewardv1.AuditStart_AUDIT_START_UNSPECIFIED {
			start = scopewardv1.AuditStart_AUDIT_START_EARLIEST
		}
		request.Start = &scopewardv1.StreamAuditEventsRequest_Position{Position: start}
	}
	return request
}

// read hands out one stream. It returns true if the reader is to stop without an error, and no error if it is to try again.
func (r *auditReader) read(ctx context.Context, yield func(AuditRecord, error) bool) (bool, error) {
	streamContext, cancel := context.WithCancel(ctx)
	defer cancel()
	outgoing, err := r.client.outgoing(streamContext, atOther)
	if err != nil {
		return false, err
	}
	stream, err := r.client.audit.StreamAuditEvents(outgoing, r.request())
	for isFirst := true; err == nil; isFirst = false {
		var message *scopewardv1.StreamAuditEventsResponse
		silence := time.AfterFunc(auditSilence, cancel)
		message, err = stream.Recv()
		silence.Stop()
		if err != nil {
			break
		}
		r.delay = firstAuditDelay
		record, position := r.receive(message, isFirst)
		if record != nil && !yield(*record, nil) {
			return true, nil
		}
		if position != nil {
			if err := r.move(*position); err != nil {
				return false, err
			}
		}
	}
	// A message may come when the time is up: it is handled, and the stream is over all the same.
	return r.ended(ctx, err, streamContext.Err() != nil)
}

// receive returns what to hand out, if anything, and the position after it, if it is one.
func (r *auditReader) receive(message *scopewardv1.StreamAuditEventsResponse, isFirst bool) (*AuditRecord, *Position) {
	switch message := message.GetMessage().(type) {
	case *scopewardv1.StreamAuditEventsResponse_Event:
		record := &AuditRecord{Event: message.Event}
		position := record.Position()
		return record, &position
	case *scopewardv1.StreamAuditEventsResponse_Gap:
		record := &AuditRecord{Gap: message.Gap}
		position := record.Position()
		return record, &position
	case *scopewardv1.StreamAuditEventsResponse_Checkpoint:
		// The first names the newest record, before anything was sent: a place to resume from only for who starts there.
		startsAtNewest := r.position == nil && r.query.StartTime.IsZero() &&
			r.query.Start == scopewardv1.AuditStart_AUDIT_START_LATEST
		if isFirst && !startsAtNewest {
			return nil, nil
		}
		return nil, &Position{message.Checkpoint.GetLogId(), message.Checkpoint.GetDurableSequence()}
	default:
		return nil, nil
	}
}

// move says that everything up to here was handled.
func (r *auditReader) move(position Position) error {
	if r.position != nil && *r.position == position {
		return nil
	}
	if r.query.Cursor != nil {
		if err := r.query.Cursor.Save(position); err != nil {
			return err
		}
	}
	r.position = &position
	return nil
}

// ended decides what the end of a stream means, and waits before the next try.
func (r *auditReader) ended(ctx context.Context, err error, wasSilent bool) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	delay := r.delay
	switch state := status.Convert(err); {
	case errors.Is(err, io.EOF):
		if !r.query.Follow {
			return true, nil
		}
	case state.Code() != codes.Unavailable && !wasSilent:
		details := detailsOf(state)
		return false, &AuditStopped{
			message: state.Message(), cause: err, Code: state.Code(), Reason: details.reason, Metadata: details.metadata,
		}
	case !r.query.Follow:
		return false, unavailable(atOther, err)
	default:
		if details := detailsOf(state); details.retryAfter > 0 {
			delay = details.retryAfter
		}
	}
	r.delay = min(r.delay*2, lastAuditDelay)
	select {
	case <-time.After(delay):
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
