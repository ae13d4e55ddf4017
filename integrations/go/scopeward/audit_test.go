package scopeward_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

var expansions = []scopewardv1.AuditEventKind{scopewardv1.AuditEventKind_AUDIT_EVENT_KIND_EXPANSION}

// expand makes an expansion of a client with this name, once the service can be reached.
func expand(t *testing.T, client *scopeward.Client, name string) {
	t.Helper()
	tool := &scopeward.OAuthClient{ClientName: name, Source: scopeward.FromRegistration}
	question := scopeward.RegistrationQuestion{Scope: new("openid"), Client: tool, CorrelationID: "login-" + name}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := client.ExpandRegistrationScopes(t.Context(), question)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// all returns the records until the end.
func all(t *testing.T, client *scopeward.Client, query scopeward.AuditQuery) []scopeward.AuditRecord {
	t.Helper()
	var records []scopeward.AuditRecord
	for record, err := range client.AuditEvents(t.Context(), query) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	return records
}

// names returns the clients of the expansions from the cursor on.
func names(t *testing.T, client *scopeward.Client, cursor scopeward.Cursor) []string {
	t.Helper()
	var names []string
	for _, record := range all(t, client, scopeward.AuditQuery{Cursor: cursor, Kinds: expansions}) {
		names = append(names, record.Event.GetClient().GetClientName())
	}
	return names
}

func run(t *testing.T, arguments ...string) string {
	t.Helper()
	program, err := scopewardtest.Program()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(program, arguments...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

func TestAnEventSaysWhatWasDecided(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	expand(t, client, "one")
	question := scopeward.AuthorizeQuestion{Scope: new("root"), RegisteredScope: new(""), Audiences: []string{audience}}
	_, refused := client.CheckAuthorizeScopes(t.Context(), question)
	var records []scopeward.AuditRecord
	// A denial is recorded without delaying its answer, so it may come a moment later.
	for record, err := range client.AuditEvents(t.Context(), scopeward.AuditQuery{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if records = append(records, record); len(records) == 3 {
			break
		}
	}
	expansion, denial := records[1].Event, records[2].Event
	equal(t, expansion.GetClient().GetClientName()+" "+expansion.GetCorrelationId(), "one login-one")
	equal(t, expansion.RegisteredScope, nil)
	equal(t, *denial.RegisteredScope, "")
	equal(t, origins(expansion.GetAdded()), []string{"offline_access ORIGIN_BASELINE"})
	equal(t, denial.GetReason(), scopewardv1.Reason_REASON_FORBIDDEN)
	equal(t, denial.GetDecisionId(), denied(t, refused).DecisionID)
	equal(t, denial.GetPrevHash(), expansion.GetHash())
	lines := strings.Split(strings.TrimSpace(run(t, "audit", "tail", "--output", "json", "--server", server.Target)), "\n")
	equal(t, len(lines), 3)
	for i, line := range lines {
		text, err := json.Marshal(records[i])
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		if err := errors.Join(json.Unmarshal(text, &got), json.Unmarshal([]byte(line), &want)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %s, want %s", text, line)
		}
	}
	kept, err := server.Audit(t.Context())
	if err != nil || len(kept) != 3 {
		t.Fatalf("%v, %v", kept, err)
	}
}

func TestItResumesAfterTheLastEventThatWasHandled(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	cursor := scopeward.FileCursor(filepath.Join(t.TempDir(), "cursor"))
	expand(t, client, "one")
	equal(t, names(t, client, cursor), []string{"one"})
	equal(t, names(t, client, cursor), nil)
	expand(t, client, "two")
	equal(t, names(t, client, cursor), []string{"two"})
	equal(t, run(t, "audit", "tail", "--server", server.Target, "--cursor-file", string(cursor)), "")
}

func TestAnEventThatWasNotHandledComesAgain(t *testing.T) {
	client := newClient(t, scopeward.Config{}, ownServer(t).Target)
	cursor := scopeward.FileCursor(filepath.Join(t.TempDir(), "cursor"))
	expand(t, client, "one")
	expand(t, client, "two")
	for record, err := range client.AuditEvents(t.Context(), scopeward.AuditQuery{Cursor: cursor, Kinds: expansions}) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Event.GetClient().GetClientName() == "two" {
			break // the consumer could not handle it
		}
	}
	equal(t, names(t, client, cursor), []string{"two"})
}

func TestFollowingSurvivesARestartOfTheServer(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	cursor := scopeward.FileCursor(filepath.Join(t.TempDir(), "cursor"))
	expand(t, client, "one")
	var seen []string
	for record, err := range client.AuditEvents(t.Context(), scopeward.AuditQuery{Cursor: cursor, Kinds: expansions, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, record.Event.GetClient().GetClientName()); len(seen) == 2 {
			break
		}
		if err := errors.Join(server.Stop(), server.Start()); err != nil {
			t.Fatal(err)
		}
		expand(t, client, "two")
	}
	equal(t, seen, []string{"one", "two"})
}

func TestLatestAndATimeLeaveOutWhatWasBefore(t *testing.T) {
	client := newClient(t, scopeward.Config{}, ownServer(t).Target)
	expand(t, client, "one")
	for want, query := range map[int]scopeward.AuditQuery{
		0: {Start: scopewardv1.AuditStart_AUDIT_START_LATEST},
		2: {StartTime: time.Now().Add(-time.Hour)},
	} {
		equal(t, len(all(t, client, query)), want)
	}
	equal(t, len(all(t, client, scopeward.AuditQuery{StartTime: time.Now().Add(time.Hour)})), 0)
	equal(t, len(all(t, client, scopeward.AuditQuery{Audiences: []string{"https://other.example.com"}})), 0)
}

func TestAGapIsHandedOut(t *testing.T) {
	client := newClient(t, scopeward.Config{}, ownServer(t, "--audit-denials-per-second", "1").Target)
	for range 30 {
		_, err := client.CheckAuthorizeScopes(t.Context(), scopeward.AuthorizeQuestion{Scope: new("root")})
		denied(t, err)
	}
	cursor := scopeward.FileCursor(filepath.Join(t.TempDir(), "cursor"))
	for record, err := range client.AuditEvents(t.Context(), scopeward.AuditQuery{Cursor: cursor, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Gap == nil {
			continue
		}
		equal(t, record.Gap.GetReason(), "DENIAL_RATE")
		equal(t, record.Gap.GetCount(), record.Gap.GetReasonCounts()["REASON_FORBIDDEN"])
		equal(t, record.Position().Sequence, record.Gap.GetSequence())
		text, err := json.Marshal(record)
		if err != nil || !strings.Contains(string(text), `{"gap":{`) {
			t.Fatalf("%s, %v", text, err)
		}
		break
	}
}

func TestACursorOutsideWhatIsKeptStops(t *testing.T) {
	client := newClient(t, scopeward.Config{}, ownServer(t).Target)
	file := filepath.Join(t.TempDir(), "cursor")
	logID := all(t, client, scopeward.AuditQuery{})[0].Event.GetLogId()
	stopped := func() (err error) {
		for _, err = range client.AuditEvents(t.Context(), scopeward.AuditQuery{Cursor: scopeward.FileCursor(file), Follow: true}) {
		}
		return err
	}
	for want, position := range map[string]scopeward.Position{
		"OutOfRange SEQUENCE_OUT_OF_RANGE": {LogID: logID, Sequence: 4_000},
		"InvalidArgument LOG_ID_FOREIGN":   {LogID: "0192e4a0-0000-7000-8000-000000000000", Sequence: 1},
	} {
		if err := scopeward.FileCursor(file).Save(position); err != nil {
			t.Fatal(err)
		}
		var stop *scopeward.AuditStopped
		if err := stopped(); !errors.As(err, &stop) {
			t.Fatal(err)
		}
		equal(t, stop.Code.String()+" "+stop.Reason, want)
		kept, err := scopeward.FileCursor(file).Load()
		equal(t, err, nil)
		equal(t, *kept, position)
	}
	for _, text := range []string{"{", "{}", `{"log_id": "x"}`, `{"log_id": 1, "sequence": 1}`} {
		write(t, file, text)
		if err := stopped(); err == nil || !strings.Contains(err.Error(), "not a cursor") {
			t.Fatalf("%q: %v", text, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := stopped(); err == nil {
		t.Fatal("a folder is a cursor")
	}
}

func TestWithoutFollowingAnOutageIsSaid(t *testing.T) {
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	var last error
	for _, last = range client.AuditEvents(t.Context(), scopeward.AuditQuery{}) {
	}
	equal(t, unavailable(t, last).Code, codes.Unavailable)
}

func TestTheContextEndsAFollower(t *testing.T) {
	client := newClient(t, scopeward.Config{}, "127.0.0.1:1")
	var last error
	for _, last = range client.AuditEvents(canceled(t), scopeward.AuditQuery{Follow: true}) {
	}
	if !strings.Contains(last.Error(), "canceled") {
		t.Fatal(last)
	}
}

func TestSeveralAddressesHaveSeveralLogs(t *testing.T) {
	client := newClient(t, scopeward.Config{}, "127.0.0.1:1", "127.0.0.1:2")
	var last error
	for _, last = range client.AuditEvents(t.Context(), scopeward.AuditQuery{}) {
	}
	if last == nil || !strings.Contains(last.Error(), "log of its own") {
		t.Fatal(last)
	}
}

func TestASilentStreamIsDead(t *testing.T) {
	defer scopeward.SetAuditSilence(200 * time.Millisecond)()
	server := ownServer(t)
	client := newClient(t, scopeward.Config{}, server.Target)
	expand(t, client, "one")
	var seen []string
	done := make(chan struct{})
	for record, err := range client.AuditEvents(t.Context(), scopeward.AuditQuery{Kinds: expansions, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, record.Event.GetClient().GetClientName()); len(seen) == 2 {
			break
		}
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(done)
			time.Sleep(500 * time.Millisecond) // longer than the silence: the stream is given up, and made again
			if err := server.Resume(); err != nil {
				t.Error(err)
			}
			expand(t, client, "two")
		}()
	}
	<-done
	equal(t, seen, []string{"one", "two"})
}
