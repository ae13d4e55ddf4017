// Package scopewardtest runs the real service for tests of authorization servers, with a policy of the test.
package scopewardtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
)

// Options say how a service runs.
type Options struct {
	// Policy is the text of the policy file.
	Policy string

	// Folder is where the policy, the state and the log are. It has to be there.
	Folder string

	// Listen is an address as for `scopeward serve --listen`. Empty means a free port of 127.0.0.1.
	Listen string

	// Arguments are further arguments of `scopeward serve`.
	Arguments []string
}

// Server is a running `scopeward serve`. It can be stopped and started again at the same place, and takes new policies.
type Server struct {
	// Target is where it listens, for [scopeward.Config].
	Target string

	options Options
	process *exec.Cmd
	ended   chan error
}

// Start runs a service that ends with the test. Its folder is a temporary one if the options name none.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	if options.Folder == "" {
		options.Folder = t.TempDir()
	}
	server, err := Run(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// Run runs a service until Stop.
func Run(options Options) (*Server, error) {
	server := &Server{options: options}
	if server.options.Listen == "" {
		server.options.Listen = "127.0.0.1:0"
	}
	if err := os.MkdirAll(filepath.Dir(server.policyFile()), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(server.policyFile(), []byte(options.Policy), 0o644); err != nil {
		return nil, err
	}
	return server, server.Start()
}

func (s *Server) policyFile() string {
	return filepath.Join(s.options.Folder, "policies", "policy.yaml")
}

var readyLine = regexp.MustCompile(`grpc=(\S+)`)

// Start starts it again after Stop, at the same address.
func (s *Server) Start() error {
	program, err := Program()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.options.Folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	arguments := []string{
		"serve", "--policies", filepath.Dir(s.policyFile()), "--state-dir", filepath.Join(s.options.Folder, "state"),
		"--listen", s.options.Listen, "--admin-listen", "127.0.0.1:0", "--debounce", "10ms", "--removal-quiet", "20ms",
	}
	process := exec.Command(program, append(arguments, s.options.Arguments...)...)
	process.Stderr = log
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "SCOPEWARD_") {
			process.Env = append(process.Env, variable)
		}
	}
	output, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	lines := bufio.NewReader(output)
	line, err := lines.ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		ended <- process.Wait()
	}()
	found := readyLine.FindStringSubmatch(line)
	if found == nil {
		_ = process.Process.Kill()
		<-ended
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s is not ready: %q, %v\n%s", program, line, err, text)
	}
	s.process, s.ended, s.Target = process, ended, found[1]
	if !strings.HasPrefix(s.Target, "unix:") {
		s.options.Listen = s.Target
	}
	return nil
}

// Stop ends it; a second Stop does nothing.
func (s *Server) Stop() error {
	if s.process == nil {
		return nil
	}
	process := s.process.Process
	s.process = nil
	_ = resume(process)
	if err := process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-s.ended:
		return err
	case <-time.After(30 * time.Second):
		_ = process.Kill()
		<-s.ended
		return errors.New("scopeward did not stop within 30 seconds")
	}
}

// SetPolicy replaces the policy, and waits until it serves. The service has to be reachable without TLS and token.
func (s *Server) SetPolicy(ctx context.Context, policy string) error {
	client, err := scopeward.New(scopeward.Config{Targets: []string{s.Target}})
	if err != nil {
		return err
	}
	defer client.Close()
	before := ""
	for status, err := range client.WatchPolicyStatus(ctx) {
		switch active := status.GetActive().GetDigest(); {
		case err != nil:
			return err
		case before == "":
			before = active
			fresh := s.policyFile() + ".new"
			if err := os.WriteFile(fresh, []byte(policy), 0o644); err != nil {
				return err
			}
			if err := os.Rename(fresh, s.policyFile()); err != nil {
				return err
			}
		case !status.GetLastAttempt().GetAccepted():
			return fmt.Errorf("the policy is not valid: %v", status.GetLastAttempt().GetFindings())
		case active != before:
			return nil
		}
	}
	return errors.New("the status ended")
}

// Audit returns the records of its audit log so far; a denial is there a moment after its answer. The service has to
// be reachable without TLS and token.
func (s *Server) Audit(ctx context.Context) ([]scopeward.AuditRecord, error) {
	client, err := scopeward.New(scopeward.Config{Targets: []string{s.Target}})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var records []scopeward.AuditRecord
	for record, err := range client.AuditEvents(ctx, scopeward.AuditQuery{}) {
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

// Program returns the path of the binary: what SCOPEWARD_BIN names, else what was built in a repository that the working folder
// is in, else scopeward of the PATH.
func Program() (string, error) {
	if named := os.Getenv("SCOPEWARD_BIN"); named != "" {
		return filepath.Abs(named)
	}
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; filepath.Dir(folder) != folder; folder = filepath.Dir(folder) {
		built := filepath.Join(folder, "target", "debug", "scopeward")
		if info, err := os.Stat(built); err == nil && info.Mode().IsRegular() {
			return built, nil
		}
	}
	return exec.LookPath("scopeward")
}
