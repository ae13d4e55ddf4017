package scopeward_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/scopeward/scopeward/integrations/go/scopeward"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardtest"
	"github.com/scopeward/scopeward/integrations/go/scopeward/scopewardv1"
)

const (
	audience = "https://mcp.example.com"
	policy   = `audiences:
  https://mcp.example.com:
    scopesSupported: [openid, profile, offline_access, "mcp:read", "mcp:write", admin, root]
    baselineClientScopes: [offline_access]
    defaultClientScopes: [openid, "mcp:read"]
    privilegedScopes: [admin]
    forbiddenScopes: [root]
    authorization:
      stepUpScopes: ["mcp:write"]
`
)

var shared struct {
	once   sync.Once
	folder string
	server *scopewardtest.Server
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		_ = shared.server.Stop()
	}
	_ = os.RemoveAll(shared.folder)
	os.Exit(code)
}

// sharedServer is for all tests that only ask.
func sharedServer(t *testing.T) *scopewardtest.Server {
	t.Helper()
	shared.once.Do(func() {
		if shared.folder, shared.err = os.MkdirTemp("", "scopeward"); shared.err == nil {
			shared.server, shared.err = scopewardtest.Run(scopewardtest.Options{Policy: policy, Folder: shared.folder})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// ownServer is for one test, which may stop it.
func ownServer(t *testing.T, arguments ...string) *scopewardtest.Server {
	t.Helper()
	return scopewardtest.Start(t, scopewardtest.Options{Policy: policy, Arguments: arguments})
}

func newClient(t testing.TB, config scopeward.Config, targets ...string) *scopeward.Client {
	t.Helper()
	config.Targets = targets
	if config.Deadline == 0 {
		// A busy machine may take a second for an answer, and most tests are not about that.
		config.Deadline = 5 * time.Second
	}
	client, err := scopeward.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// eventually asks until there is an answer: the client comes back within its back-off of a second.
func eventually(t *testing.T, client *scopeward.Client) *scopeward.AuthorizeAnswer {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		answer, err := client.CheckAuthorizeScopes(t.Context(), narrow())
		if err == nil {
			return answer
		}
		if unavailable(t, err).OAuthError().Error != "temporarily_unavailable" || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func narrow() scopeward.AuthorizeQuestion {
	return scopeward.AuthorizeQuestion{Scope: new("openid"), RegisteredScope: new("openid")}
}

// oldServer passes questions to the real one, and changes its answers: as a service of another version.
type oldServer struct {
	scopewardv1.UnimplementedScopePolicyServiceServer
	real   scopewardv1.ScopePolicyServiceClient
	change func(protoreflect.Message)
	asked  func() error

	Target string
	Health *healthServer
	grpc   *grpc.Server
}

func startOldServer(t *testing.T, target string, change func(protoreflect.Message)) *oldServer {
	t.Helper()
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &oldServer{
		real:   scopewardv1.NewScopePolicyServiceClient(connection),
		change: change,
		asked:  func() error { return nil },
		Target: listener.Addr().String(),
		Health: newHealthServer(),
		grpc:   grpc.NewServer(),
	}
	scopewardv1.RegisterScopePolicyServiceServer(server.grpc, server)
	healthpb.RegisterHealthServer(server.grpc, server.Health)
	var served sync.WaitGroup
	served.Go(func() { _ = server.grpc.Serve(listener) })
	t.Cleanup(func() {
		server.grpc.Stop()
		served.Wait()
		_ = connection.Close()
	})
	return server
}

// healthServer says what a test wants it to. The one of gRPC would switch on the health checks of this whole program.
type healthServer struct {
	healthpb.UnimplementedHealthServer
	mutex   sync.Mutex
	status  healthpb.HealthCheckResponse_ServingStatus
	changed chan struct{}
}

func newHealthServer() *healthServer {
	return &healthServer{status: healthpb.HealthCheckResponse_SERVING, changed: make(chan struct{})}
}

func (h *healthServer) set(status healthpb.HealthCheckResponse_ServingStatus) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.status = status
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *healthServer) Watch(_ *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	for {
		h.mutex.Lock()
		status, changed := h.status, h.changed
		h.mutex.Unlock()
		if err := stream.Send(&healthpb.HealthCheckResponse{Status: status}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// without leaves out a field, as a server from before it does.
func without(names ...protoreflect.Name) func(protoreflect.Message) {
	return func(message protoreflect.Message) {
		for _, name := range names {
			message.Clear(message.Descriptor().Fields().ByName(name))
		}
	}
}

func (s *oldServer) ExpandRegistrationScopes(
	ctx context.Context, question *scopewardv1.ExpandRegistrationScopesRequest,
) (*scopewardv1.ExpandRegistrationScopesResponse, error) {
	if err := s.asked(); err != nil {
		return nil, err
	}
	answer, err := s.real.ExpandRegistrationScopes(ctx, question)
	if err == nil && s.change != nil {
		s.change(answer.ProtoReflect())
	}
	return answer, err
}

func (s *oldServer) CheckAuthorizeScopes(
	ctx context.Context, question *scopewardv1.CheckAuthorizeScopesRequest,
) (*scopewardv1.CheckAuthorizeScopesResponse, error) {
	if err := s.asked(); err != nil {
		return nil, err
	}
	answer, err := s.real.CheckAuthorizeScopes(ctx, question)
	if err == nil && s.change != nil {
		s.change(answer.ProtoReflect())
	}
	return answer, err
}

// authority issues certificates into a folder, each as NAME.pem and NAME.key.
type authority struct {
	t           *testing.T
	folder      string
	File        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, folder, name string) *authority {
	t.Helper()
	issuer := &authority{t: t, folder: folder, File: filepath.Join(folder, name+".pem")}
	template := issuer.template(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	issuer.key = newKey(t)
	issuer.certificate = issuer.sign(template, template, &issuer.key.PublicKey, issuer.key, issuer.File)
	return issuer
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func (a *authority) issue(name string, hosts ...string) (certificateFile, keyFile string) {
	a.t.Helper()
	template := a.template(name)
	for _, host := range hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key := newKey(a.t)
	certificateFile, keyFile = filepath.Join(a.folder, name+".pem"), filepath.Join(a.folder, name+".key")
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
	a.sign(template, a.certificate, &key.PublicKey, a.key, certificateFile)
	return certificateFile, keyFile
}

func (a *authority) sign(
	template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey, file string,
) *x509.Certificate {
	encoded, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encoded})))
	certificate, err := x509.ParseCertificate(encoded)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
