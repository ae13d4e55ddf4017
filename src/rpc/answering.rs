//! An answer on its way: there at once, once its record is durable, or once other threads have decided it.

use std::future::Future;
use std::pin::Pin;

use crate::audit::Appending;
use crate::rpc::error::RpcError;
use crate::rpc::record::not_durable;

/// An answer: most are there at once.
pub enum Answering<'c, T, W> {
    /// It is there, or why there is none.
    Done(Result<T, RpcError>),
    /// It is there, and may leave once its record is durable.
    Recording(T, W),
    /// It waits for the answers and records of a batch, or for a thread that decides large questions.
    Waiting(Pin<Box<dyn Future<Output = Result<T, RpcError>> + Send + 'c>>),
}

impl<'c, T, W> Answering<'c, T, W> {
    /// What was decided here, or what `elsewhere` decides.
    pub(super) fn of<F>(
        decided: Result<Option<Answered<T, W>>, RpcError>,
        elsewhere: impl FnOnce() -> F,
    ) -> Self
    where
        F: Future<Output = Result<T, RpcError>> + Send + 'c,
    {
        match decided {
            Ok(Some(Answered { response, waiting: None })) => Self::Done(Ok(response)),
            Ok(Some(Answered { response, waiting: Some(waiting) })) => Self::Recording(response, waiting),
            Ok(None) => Self::Waiting(Box::pin(elsewhere())),
            Err(error) => Self::Done(Err(error)),
        }
    }
}

impl<T> Answering<'_, T, Appending> {
    /// The answer once its record is durable. How long that may take is up to the caller.
    ///
    /// # Errors
    /// [`RpcError`], as for a call.
    pub async fn wait(self) -> Result<T, RpcError> {
        match self {
            Self::Done(answer) => answer,
            Self::Recording(response, waiting) => Answered { response, waiting: Some(waiting) }.wait().await,
            Self::Waiting(answer) => answer.await,
        }
    }
}

/// A response, and what it has to wait for.
pub(super) struct Answered<T, W> {
    pub(super) response: T,
    pub(super) waiting: Option<W>,
}

impl<T> Answered<T, Appending> {
    /// The response once its record is durable. How long that may take is up to the deadline of the call.
    pub(super) async fn wait(self) -> Result<T, RpcError> {
        let Self { response, waiting } = self;
        if let Some(waiting) = waiting {
            waiting.await.map_err(|error| not_durable(&error))?;
        }
        Ok(response)
    }
}
