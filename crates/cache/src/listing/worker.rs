//! One of the tasks that list a source together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millpond_core::Validator;
use tokio::sync::{mpsc, watch};

use super::frontier::Frontier;
use super::pages::{PageRequest, page};
use super::{Batch, ListError, ListProgress, ListedObject, Refused, RefusedBecause};
use crate::metrics::OriginMetrics;
use crate::source::{Depth, Entry, Page, Source};

/// Empty pages in a row after which a listing counts as endless.
const MAX_EMPTY_PAGES: u32 = 1000;

pub(super) struct Worker {
    pub(super) source: Arc<Source>,
    pub(super) frontier: Arc<Frontier>,
    pub(super) batches: mpsc::Sender<Batch>,
    pub(super) progress: Arc<watch::Sender<ListProgress>>,
    pub(super) metrics: OriginMetrics,
    pub(super) page_deadline: Duration,
    /// Workers of the listing.
    pub(super) workers: usize,
    /// Queued prefixes from which on more would not keep the workers busier.
    pub(super) enough_prefixes: usize,
    /// Prefixes in a directory from which on it is worth a request to see what is in them.
    pub(super) wide: usize,
}

/// The pages of one prefix, one after the other.
struct Pages<'a> {
    prefix: &'a str,
    depth: Depth,
    next: Next,
    empty: u32,
}

enum Next {
    First,
    Token(String),
    End,
}

impl<'a> Pages<'a> {
    const fn of(prefix: &'a str, depth: Depth) -> Self {
        Self {
            prefix,
            depth,
            next: Next::First,
            empty: 0,
        }
    }

    async fn next(&mut self, worker: &Worker) -> Result<Option<Page>, ListError> {
        let token = match &self.next {
            Next::First => None,
            Next::Token(token) => Some(token.clone()),
            Next::End => return Ok(None),
        };
        let request = PageRequest {
            prefix: self.prefix,
            depth: self.depth,
            token: token.clone(),
        };
        let page = page(&worker.source, request, worker.page_deadline, &worker.metrics).await?;
        self.empty = if page.entries.is_empty() && page.prefixes.is_empty() {
            self.empty + 1
        } else {
            0
        };
        if (page.next.is_some() && page.next == token) || self.empty > MAX_EMPTY_PAGES {
            let reason = "the source's listing never ends: its pages repeat or are empty".to_owned();
            return Err(ListError::Unsupported {
                prefix: self.prefix.to_owned(),
                reason,
            });
        }
        self.next = page.next.clone().map_or(Next::End, Next::Token);
        Ok(Some(page))
    }
}

/// Returns the number of directories directly below `prefix` that a page of its tree reaches into.
fn children(prefix: &str, page: &Page) -> usize {
    let names = page.entries.iter().filter_map(|entry| {
        let below = entry.key.strip_prefix(prefix)?;
        below.split_once('/').map(|(child, _)| child)
    });
    names.collect::<BTreeSet<_>>().len()
}

impl Worker {
    pub(super) async fn run(self) -> Result<(), ListError> {
        while let Some(taken) = self.frontier.take().await {
            self.list(taken.prefix.clone()).await?;
            drop(taken);
            let waiting = u64::try_from(self.frontier.unfinished()).unwrap_or(u64::MAX);
            self.progress
                .send_modify(|progress| progress.prefixes_waiting = waiting);
        }
        Ok(())
    }

    /// Lists a prefix, and those below it that the frontier has no space for.
    async fn list(&self, root: String) -> Result<(), ListError> {
        let mut own = vec![root];
        while let Some(prefix) = own.pop() {
            if self.source.lists_trees() && self.frontier.queued() >= self.enough_prefixes {
                self.tree(&prefix, None).await?;
            } else {
                self.level(&prefix, &mut own).await?;
            }
            self.progress.send_modify(|progress| progress.prefixes_done += 1);
        }
        Ok(())
    }

    /// Lists the level directly below a prefix, and queues the prefixes there, or adds them to `own`.
    async fn level(&self, prefix: &str, own: &mut Vec<String>) -> Result<(), ListError> {
        let mut pages = Pages::of(prefix, Depth::Level);
        let mut first = true;
        while let Some(page) = pages.next(self).await? {
            if first && self.source.lists_trees() && page.prefixes.len() > self.wide {
                let mut trees = Pages::of(prefix, Depth::Tree);
                if let Some(probe) = trees.next(self).await?
                    && children(prefix, &probe) > self.workers
                {
                    // Many small directories: a page of the whole tree holds many of them.
                    return self.tree(prefix, Some((probe, trees))).await;
                }
            }
            first = false;
            self.send(prefix, page.entries).await;
            for child in page.prefixes {
                // Only a prefix strictly below is listed: a source that returns others would never end.
                let below = child.len() > prefix.len() && child.starts_with(prefix) && child.ends_with('/');
                if !below {
                    continue;
                }
                match self.frontier.push(child) {
                    Ok(()) => {}
                    Err(child) if self.source.lists_trees() => self.tree(&child, None).await?,
                    Err(child) => own.push(child),
                }
            }
        }
        Ok(())
    }

    /// Lists everything below a prefix as one tree, continuing from the first page if it was read already.
    async fn tree(&self, prefix: &str, begun: Option<(Page, Pages<'_>)>) -> Result<(), ListError> {
        let (first, mut pages) = match begun {
            Some((page, pages)) => (Some(page), pages),
            None => (None, Pages::of(prefix, Depth::Tree)),
        };
        if let Some(page) = first {
            self.send(prefix, page.entries).await;
        }
        while let Some(page) = pages.next(self).await? {
            self.send(prefix, page.entries).await;
        }
        Ok(())
    }

    async fn send(&self, prefix: &str, entries: Vec<Entry>) {
        let mut batch = Batch::default();
        for entry in entries {
            // The marker of the Dataset's own root, and what a source lists beside what was requested.
            if entry.key == self.source.prefix() || (!entry.key.starts_with(prefix) && !entry.damaged) {
                continue;
            }
            match self.check(entry) {
                Ok(listed) => batch.objects.push(listed),
                Err(refused) => batch.refused.push(refused),
            }
        }
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let bytes: u64 = batch
            .objects
            .iter()
            .fold(0, |sum, object| sum.saturating_add(object.size_bytes));
        let waiting = count(self.frontier.unfinished());
        self.progress.send_modify(|progress| {
            progress.objects += count(batch.objects.len());
            progress.refused += count(batch.refused.len());
            progress.bytes = progress.bytes.saturating_add(bytes);
            progress.pages += 1;
            progress.prefixes_waiting = waiting;
        });
        if !batch.objects.is_empty() || !batch.refused.is_empty() {
            // Fails when the listing was dropped, and this task with it.
            let _ = self.batches.send(batch).await;
        }
    }

    /// Returns the object if exactly it and this version can be read later.
    fn check(&self, entry: Entry) -> Result<ListedObject, Refused> {
        let Entry {
            key,
            size_bytes,
            modified,
            etag,
            version,
            damaged,
            directory,
            link_outside,
            special,
        } = entry;
        let refuse = |key, reason| Err(Refused { key, reason });
        if damaged {
            return refuse(key, RefusedBecause::NotUnicode);
        }
        if link_outside {
            return refuse(key, RefusedBecause::LinkOutside);
        }
        if special {
            return refuse(key, RefusedBecause::Special);
        }
        let key = if directory && !key.ends_with('/') {
            key + "/"
        } else {
            key
        };
        // A key that is no valid file name is refused by the catalog, and so is never requested.
        if key.chars().any(char::is_control) && !self.source.can_request(&key) {
            return refuse(key, RefusedBecause::CannotBeAskedFor);
        }
        let strong = etag.filter(|etag| !etag.starts_with("W/"));
        let validator = match (strong, version, modified) {
            (Some(etag), _, _) => Validator::ETag(etag),
            (None, Some(version), _) => Validator::VersionId(version),
            (None, None, Some(time)) => Validator::Modified { time },
            (None, None, None) => return refuse(key, RefusedBecause::NoValidator),
        };
        match size_bytes {
            Some(size_bytes) => Ok(ListedObject {
                key,
                size_bytes,
                modified: modified.unwrap_or_default(),
                validator,
            }),
            None => refuse(key, RefusedBecause::NoValidator),
        }
    }
}
