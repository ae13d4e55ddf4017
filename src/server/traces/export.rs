//! Sending spans: a queue that is bounded and never waits, and a part of the server that empties it.
//!
//! A collector that is down, slow or silent costs spans, which are counted, and a line of the log a minute; nothing else waits for it.
//! (OTLP specification, "OTLP/gRPC": partial success, and which failures are tried again.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use tracing::instrument::WithSubscriber as _;
use tracing::{Dispatch, warn};

use super::count::{SpanCounts, SpanLoss};
use super::dial::channel;
use super::settings::TraceSettings;
use crate::backoff::Backoff;
use crate::escape::shown;
use crate::server::dial::cause;
use crate::server::supervisor::PartResult;
use crate::server::tls::TlsError;
use crate::status::{StatusTracker, kind};
use crate::throttle::Throttle;

/// Takes spans that ended.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: Sender<SpanData>,
    batch: usize,
    full_batch: Arc<Notify>,
    counts: SpanCounts,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped(SpanLoss::QueueFull, 1);
        } else if self.spans.max_capacity() - self.spans.capacity() >= self.batch {
            self.full_batch.notify_one();
        }
    }

    /// Nobody asks for it: the part that sends them is told to stop.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What the part that sends spans needs to run, and to run again.
#[derive(Clone, Debug)]
pub(in crate::server) struct SpanExport {
    spans: Arc<Mutex<Receiver<SpanData>>>,
    full_batch: Arc<Notify>,
    batch: usize,
    delay: Duration,
    timeout: Duration,
    client: TraceServiceClient<Channel>,
    headers: MetadataMap,
    resource: Arc<ResourceAttributesWithSchema>,
    counts: SpanCounts,
    /// Dropped spans that a line of the log told of, or will.
    told: Arc<AtomicU64>,
    lines: Arc<Throttle>,
}

impl SpanExport {
    /// The part, and the queue that it empties.
    pub(super) fn new(
        settings: &TraceSettings,
        resource: &Resource,
        counts: SpanCounts,
    ) -> Result<(SpanQueue, Self), TlsError> {
        let (sender, receiver) = mpsc::channel(settings.queue);
        let full_batch = Arc::<Notify>::default();
        let export = Self {
            spans: Arc::new(Mutex::new(receiver)),
            full_batch: Arc::clone(&full_batch),
            batch: settings.batch,
            delay: settings.delay,
            timeout: settings.timeout,
            client: TraceServiceClient::new(channel(settings)?),
            headers: MetadataMap::from_headers(settings.headers.clone()),
            resource: Arc::new(resource.into()),
            counts: counts.clone(),
            told: Arc::default(),
            lines: Arc::new(Throttle::every_minute()),
        };
        Ok((SpanQueue { spans: sender, batch: settings.batch, full_batch, counts }, export))
    }

    /// Sends spans until it is told to stop, then what is left, for at most `flush`.
    ///
    /// # Errors
    /// None: what cannot be sent is dropped and counted.
    pub(in crate::server) async fn run(
        self,
        stop: CancellationToken,
        flush: Duration,
        tracker: Arc<StatusTracker>,
    ) -> PartResult {
        tracker.toggle(kind::TRACES_STALLED, None, SystemTime::now());
        let mut spans = self.spans.lock().await;
        let too_late = async {
            stop.cancelled().await;
            sleep(flush).await;
        };
        tokio::select! {
            () = self.send_until(&stop, &mut spans) => {}
            () = too_late => {}
        }
        let mut left = 0;
        while spans.try_recv().is_ok() {
            left += 1;
        }
        self.counts.dropped(SpanLoss::Shutdown, left);
        self.tell("the server stopped before they could be sent");
        Ok(())
    }

    /// Sends spans in batches; once told to stop, until there are none or one batch cannot be sent.
    async fn send_until(&self, stop: &CancellationToken, spans: &mut Receiver<SpanData>) {
        let mut ticks = interval_at(Instant::now() + self.delay, self.delay);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.full_batch.notified() => if spans.len() < self.batch {
                    continue;
                },
                () = stop.cancelled() => break,
            }
            let mut problem = SLOW.to_owned();
            loop {
                if let Err(why) = self.send(self.take(spans), stop).await {
                    problem = why;
                }
                // What is less than a batch waits for more.
                if spans.len() < self.batch || stop.is_cancelled() {
                    break;
                }
            }
            self.tell(&problem);
        }
        while !spans.is_empty() {
            if let Err(problem) = self.send(self.take(spans), stop).await {
                return self.tell(&problem);
            }
        }
    }

    fn take(&self, spans: &mut Receiver<SpanData>) -> Vec<SpanData> {
        let mut batch = Vec::with_capacity(spans.len().min(self.batch));
        while batch.len() < self.batch
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        batch
    }

    /// Sends spans, with several attempts if it has to. They are counted, whatever becomes of them.
    ///
    /// # Errors
    /// Why some of them are lost, in words.
    async fn send(&self, spans: Vec<SpanData>, stop: &CancellationToken) -> Result<(), String> {
        if spans.is_empty() {
            return Ok(());
        }
        let mut unsent = Unsent { counts: &self.counts, spans: spans.len() as u64 };
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        let deadline = Instant::now() + self.timeout;
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        loop {
            let exported = timeout_at(deadline, self.export(request.clone(), deadline)).await;
            let status = match exported {
                Ok(Ok(partial)) => return unsent.exported(partial),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("the collector did not answer in time"),
            };
            let wait = retry_after(&status).map(|least| backoff.failed().max(least));
            let Some(wait) = wait.filter(|wait| Instant::now() + *wait < deadline && !stop.is_cancelled())
            else {
                return Err(unsent.failed(&status));
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return Err(unsent.failed(&status)),
            }
        }
    }

    async fn export(
        &self,
        request: ExportTraceServiceRequest,
        deadline: Instant,
    ) -> Result<ExportTracePartialSuccess, Status> {
        let mut request = Request::new(request);
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut client = self.client.clone();
        let response = client.export(request).with_subscriber(Dispatch::none()).await?;
        Ok(response.into_inner().partial_success.unwrap_or_default())
    }

    /// Logs that spans were dropped since the last time, if it is time for a line.
    fn tell(&self, problem: &str) {
        let dropped = self.counts.all_dropped();
        let new = dropped.saturating_sub(self.told.swap(dropped, Ordering::Relaxed));
        if let Some(spans) = self.lines.add(new, std::time::Instant::now()) {
            warn!(spans, problem, "spans were dropped instead of being sent to the collector");
        }
    }
}

/// Spans that are being sent; lost if that is given up.
struct Unsent<'c> {
    counts: &'c SpanCounts,
    spans: u64,
}

impl Unsent<'_> {
    /// The collector took them, or says how many it did not take.
    fn exported(&mut self, partial: ExportTracePartialSuccess) -> Result<(), String> {
        let ExportTracePartialSuccess { rejected_spans, error_message } = partial;
        let spans = std::mem::take(&mut self.spans);
        let rejected = u64::try_from(rejected_spans).unwrap_or_default().min(spans);
        self.counts.exported(spans - rejected);
        self.counts.dropped(SpanLoss::Rejected, rejected);
        if rejected == 0 {
            Ok(())
        } else {
            Err(format!("the collector rejected them: {}", shown(&error_message)))
        }
    }

    fn failed(&mut self, status: &Status) -> String {
        self.counts.dropped(SpanLoss::ExportFailed, std::mem::take(&mut self.spans));
        match std::error::Error::source(status) {
            Some(_) => format!("the collector could not be reached: {}", cause(status)),
            None => format!("{:?}: {}", status.code(), shown(status.message())),
        }
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.counts.dropped(SpanLoss::Shutdown, self.spans);
    }
}

/// Whether an attempt that failed like this is worth another one, and after how long at the least ("Failures").
fn retry_after(status: &Status) -> Option<Duration> {
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Some(asked.unwrap_or_default()),
        // Only if the collector says that it can take them later.
        Code::ResourceExhausted => asked,
        _ => None,
    }
}

/// Why spans are lost while all exports succeed.
const SLOW: &str =
    "there were more than the collector takes, and the queue was full (OTEL_BSP_MAX_QUEUE_SIZE)";
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
