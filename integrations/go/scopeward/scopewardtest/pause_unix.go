//go:build unix

package scopewardtest

import (
	"os"
	"syscall"
)

// Pause stops the process where it is: connections stay, nothing is answered. Not on Windows.
func (s *Server) Pause() error {
	if err := s.process.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	_, err := syscall.Wait4(s.process.Process.Pid, nil, syscall.WUNTRACED, nil)
	return err
}

// Resume continues it.
func (s *Server) Resume() error { return resume(s.process.Process) }

func resume(process *os.Process) error { return process.Signal(syscall.SIGCONT) }
