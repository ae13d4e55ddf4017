//! File descriptors: as many as the system allows, and a reserve of them for files.
//!
//! Connections that take the last descriptor would keep policies from being read and the audit from being written.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Raises the soft limit to the hard one. Returns the limit that holds now; `None` if there is none.
pub(super) fn raise_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    if before == limit.maximum {
        return before;
    }
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => {
            debug!(?before, now = ?limit.current, "raised the limit of open files");
            limit.current
        }
        Err(error) => {
            warn!(%error, limit = ?before, "could not raise the limit of open files");
            before
        }
    }
}

/// How many of `wanted` connections there may be with `limit` descriptors, so that files have theirs.
pub(super) fn connection_limit(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return wanted };
    let reserve = RESERVE.min(limit / 2);
    let possible = limit - reserve;
    if wanted > possible {
        warn!(
            wanted,
            possible,
            open_files = limit,
            "fewer connections than asked for: files need descriptors too"
        );
    }
    wanted.min(possible)
}

/// Descriptors for policy files and their watches, the audit store and its readers, the admin endpoint, the log.
const RESERVE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_files() {
        for (limit, expected) in [
            (None, 1024),
            (Some(1 << 20), 1024),
            (Some(1536), 1024),
            (Some(1535), 1023),
            (Some(1024), 512),
            (Some(256), 128),
            (Some(0), 0),
        ] {
            assert_eq!(connection_limit(1024, limit), expected, "{limit:?}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_limit();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_limit(), raised, "once more changes nothing");
    }
}
