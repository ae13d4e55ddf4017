// Command pages runs what Markdown pages tell their readers to run: each page from top to bottom, in a folder of its own that has
// a copy of integrations/go.
//
//   - ```go file=PATH, ```yaml file=PATH and so on: written to that file
//   - ```console serve: its command is a Scopeward, and stays until the end of the page
//   - ```console: lines that begin with "$ " are commands, other lines what they print; "..." stands for any text
//   - ```console no-run: not run, unless a further word is "go": then it is for this program alone
package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

const defaultPort = "50551"

func main() {
	log.SetFlags(0)
	for _, page := range os.Args[1:] {
		log.Printf("running %s", page)
		if err := run(page); err != nil {
			log.Fatalf("%s: %v", page, err)
		}
	}
}

// fence is one fenced block: its language, the further words of its first line, and its lines.
type fence struct {
	language string
	words    []string
	lines    []string
}

func fences(text string) []fence {
	var all []fence
	var open *fence
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case open == nil && strings.HasPrefix(line, "```") && len(line) > 3:
			words := strings.Fields(line[3:])
			open = &fence{language: words[0], words: words[1:]}
		case open != nil && line == "```":
			all = append(all, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		}
	}
	return all
}

type runner struct {
	folder  string
	port    string
	servers []*exec.Cmd
}

func run(page string) (err error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "page")
	if err != nil {
		return err
	}
	// The address that the pages name may be in use here.
	port, err := freePort()
	if err != nil {
		return err
	}
	runner := &runner{folder: folder, port: port}
	defer func() { err = errors.Join(err, runner.stop(), os.RemoveAll(folder)) }()
	if err := runner.prepare(); err != nil {
		return err
	}
	for _, block := range fences(string(text)) {
		if err := runner.play(block); err != nil {
			return err
		}
	}
	return nil
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// prepare copies integrations/go, and puts the binary on the path.
func (r *runner) prepare() error {
	program := cmp.Or(os.Getenv("SCOPEWARD_BIN"), "../../../target/debug/scopeward")
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(r.folder, ".tools"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(program, filepath.Join(r.folder, ".tools", "scopeward")); err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(r.folder, "integrations", "go"), os.DirFS(".."))
}

func (r *runner) here(text string) string { return strings.ReplaceAll(text, defaultPort, r.port) }

func (r *runner) command(text string) *exec.Cmd {
	command := exec.Command("bash", "-c", text)
	command.Dir = r.folder
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "SCOPEWARD_") && !strings.HasPrefix(variable, "PATH=") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, "PATH="+filepath.Join(r.folder, ".tools")+":"+os.Getenv("PATH"))
	return command
}

func (r *runner) play(block fence) error {
	switch {
	case len(block.words) > 0 && strings.HasPrefix(block.words[0], "file="):
		file := filepath.Join(r.folder, strings.TrimPrefix(block.words[0], "file="))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(r.here(strings.Join(block.lines, "\n"))+"\n"), 0o644)
	case block.language != "console" || (slices.Contains(block.words, "no-run") && !slices.Contains(block.words, "go")):
		return nil
	case slices.Contains(block.words, "serve"):
		return r.serve(strings.TrimPrefix(block.lines[0], "$ "))
	}
	var command string
	var expected []string
	for _, line := range block.lines {
		next, isCommand := strings.CutPrefix(line, "$ ")
		if !isCommand {
			expected = append(expected, line)
			continue
		}
		if err := r.expect(command, expected); err != nil {
			return err
		}
		command, expected = next, nil
	}
	return r.expect(command, expected)
}

func (r *runner) expect(command string, expected []string) error {
	if command == "" {
		return nil
	}
	process := r.command(r.here(command))
	var errs strings.Builder
	process.Stderr = &errs
	output, err := process.Output()
	printed := strings.TrimRight(string(output), "\n")
	if err != nil {
		return fmt.Errorf("%s: %w\n%s\n%s", command, err, printed, errs.String())
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Join(expected, "\n")), `\.\.\.`, `(?s:.*)`)
	if !regexp.MustCompile(`^` + pattern + `$`).MatchString(printed) {
		return fmt.Errorf("%s printed\n%s\nand not\n%s", command, printed, strings.Join(expected, "\n"))
	}
	return nil
}

func (r *runner) serve(command string) error {
	server := r.command("exec " + command + " --listen 127.0.0.1:" + r.port + " --admin-listen 127.0.0.1:0")
	output, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	r.servers = append(r.servers, server)
	lines := bufio.NewReader(output)
	line, err := lines.ReadString('\n')
	if !strings.Contains(line, "ready") {
		return fmt.Errorf("%s is not ready: %q, %v", command, line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return nil
}

func (r *runner) stop() error {
	var errs []error
	for _, server := range r.servers {
		errs = append(errs, server.Process.Signal(syscall.SIGTERM), server.Wait())
	}
	return errors.Join(errs...)
}
