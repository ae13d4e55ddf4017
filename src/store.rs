//! The policy that serves: a whole set at a time, swapped atomically, the last good one kept.
//!
//! [`state::ReloadState`] decides what an attempt to load means, [`load`] makes one, [`watch`] says when. [`Active`] is what a
//! request sees: one set with its generation, the same from start to end. Knows nothing about status, audit or metrics;
//! the layer above tells them.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use crate::policy::PolicySet;

pub mod last_good;
pub mod load;
mod parallel;
pub mod read;
pub mod state;
pub mod watch;
pub mod watch_targets;

/// A set that serves.
#[derive(Debug)]
pub struct Active {
    /// The set.
    pub set: PolicySet,
    /// 1 for the first set of this process, one more for each accepted set.
    pub generation: u64,
    /// When it began to serve.
    pub load_time: SystemTime,
}

/// Where requests find the set that serves; `None` before the first one.
pub type Current = Arc<ArcSwapOption<Active>>;
