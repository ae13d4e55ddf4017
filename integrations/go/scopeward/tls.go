package scopeward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// tlsFiles reads the files of TLS again when they change.
type tlsFiles struct {
	caFile, certFile, keyFile string
	serverName                string

	mutex   sync.Mutex
	isFor   []fileState
	current *tls.Config
}

type fileState struct {
	name     string
	size     int64
	modified time.Time
}

// config returns what the files say now. Files that cannot be used leave the last good ones in use, if there were any.
func (f *tlsFiles) config() (*tls.Config, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	states, err := f.states()
	if err == nil && f.current != nil && equalStates(states, f.isFor) {
		return f.current, nil
	}
	if err == nil {
		var fresh *tls.Config
		if fresh, err = f.read(); err == nil {
			f.current, f.isFor = fresh, states
		}
	}
	if f.current == nil {
		return nil, fmt.Errorf("could not use a TLS file: %w", err)
	}
	return f.current, nil
}

func (f *tlsFiles) states() ([]fileState, error) {
	var states []fileState
	for _, name := range []string{f.caFile, f.certFile, f.keyFile} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		states = append(states, fileState{name, info.Size(), info.ModTime()})
	}
	return states, nil
}

func equalStates(some, others []fileState) bool {
	for i := range some {
		if i >= len(others) || some[i].size != others[i].size || !some[i].modified.Equal(others[i].modified) {
			return false
		}
	}
	return true
}

func (f *tlsFiles) read() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.caFile != "" {
		text, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("`%s` has no certificate", f.caFile)
		}
	}
	if f.certFile != "" {
		pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// fileCredentials makes each handshake with the files as they are then.
type fileCredentials struct {
	files *tlsFiles
}

func (c fileCredentials) ClientHandshake(
	ctx context.Context, authority string, connection net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	config, err := c.files.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, connection)
}

func (c fileCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for clients")
}

func (c fileCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c fileCredentials) Clone() credentials.TransportCredentials { return c }

func (c fileCredentials) OverrideServerName(name string) error {
	return errors.New("the name of the server is set by Config.ServerName")
}
