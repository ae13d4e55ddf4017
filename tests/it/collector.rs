//! A collector of traces, on a free port of the loopback address, that does what a test wants.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::certs::Files;
use crate::harness::within;

/// What a collector does with an export.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// It takes the spans.
    Take,
    /// It never answers.
    Hang,
    /// It refuses so many exports like this, and takes those after.
    Refuse(usize, Code),
    /// It takes the export, and says that it does not want so many of its spans.
    Reject(i64),
}

/// A collector; it is gone when it is dropped.
pub(crate) struct Collector {
    runtime: Runtime,
    pub(crate) addr: SocketAddr,
    exports: UnboundedReceiver<Export>,
    seen: Vec<Collected>,
    asked: Arc<AtomicUsize>,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    pub(crate) span: Span,
    /// Of the process.
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) headers: MetadataMap,
}

struct Export(MetadataMap, ExportTraceServiceRequest);

struct Handler {
    answer: Answer,
    asked: Arc<AtomicUsize>,
    exports: UnboundedSender<Export>,
}

#[tonic::async_trait]
impl TraceService for Handler {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let mut partial_success = None;
        match self.answer {
            Answer::Take => {}
            Answer::Hang => std::future::pending().await,
            Answer::Refuse(times, code) if asked < times => {
                return Err(Status::new(code, "not \u{1b}[31mnow"));
            }
            Answer::Refuse(..) => {}
            Answer::Reject(rejected_spans) => {
                let error_message = "too \u{1b}[31mlong".to_owned();
                partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            }
        }
        let (headers, _, message) = request.into_parts();
        _ = self.exports.send(Export(headers, message));
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

impl Collector {
    pub(crate) fn start(answer: Answer) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, exports) = unbounded_channel();
        let asked = Arc::<AtomicUsize>::default();
        let handler = Handler { answer, asked: Arc::clone(&asked), exports: sender };
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(handler));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { runtime, addr, exports, seen: Vec::new(), asked }
    }

    /// The address to name as the endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Another address of it, which wants TLS and certificates of `client_ca`.
    pub(crate) fn over_tls(&self, files: &Files, client_ca: &Path) -> String {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&fs::read(client_ca).unwrap()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
        let chain = fs::read(&files.chain).unwrap();
        let chain = CertificateDer::pem_slice_iter(&chain).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(&fs::read(&files.key).unwrap()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (addr, behind) = (listener.local_addr().unwrap(), self.addr);
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut plain = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut plain).await
                });
            }
        });
        format!("https://localhost:{}", addr.port())
    }

    /// How many exports were begun.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The spans that are here and as wanted.
    pub(crate) fn seen(&mut self, wanted: impl Fn(&Collected) -> bool) -> Vec<Collected> {
        while let Ok(export) = self.exports.try_recv() {
            self.take(export);
        }
        self.seen.iter().filter(|collected| wanted(collected)).cloned().collect()
    }

    /// Waits until a span is as wanted, and returns it.
    pub(crate) fn span(&mut self, what: &str, wanted: impl Fn(&Collected) -> bool) -> Collected {
        loop {
            if let Some(found) = self.seen.iter().find(|collected| wanted(collected)) {
                return found.clone();
            }
            let export = within(what, self.exports.recv());
            let export = self.runtime.block_on(export).expect("a span");
            self.take(export);
        }
    }

    fn take(&mut self, Export(headers, message): Export) {
        for resource in message.resource_spans {
            let attributes = values(&resource.resource.unwrap().attributes);
            for scope in resource.scope_spans {
                assert_eq!(scope.scope.unwrap().name, "scopeward");
                self.seen.extend(scope.spans.into_iter().map(|span| Collected {
                    span,
                    resource: attributes.clone(),
                    headers: headers.clone(),
                }));
            }
        }
    }
}

impl Collected {
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        values(&self.span.attributes)
    }
}

/// Attributes as text.
fn values(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|pair| (pair.key.clone(), text(pair.value.as_ref().unwrap().value.as_ref().unwrap())))
        .collect()
}
