//! The tasks that a process consists of: each must live as long as the process.
//!
//! A task that exits, with an error, by itself or by a panic, is a reason to end the process, so that its supervisor or the
//! kubelet starts another. [`Tasks::next_exit`] says which one and why. Dropping the set aborts its tasks.

use std::convert::Infallible;
use std::future::Future;

use tokio::task::{JoinError, JoinSet};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a task that must live does not.
#[derive(Debug, thiserror::Error)]
pub enum TaskExit {
    /// It returned, though nothing had told it to.
    #[error("{task} ended")]
    Ended {
        /// Its name.
        task: &'static str,
    },
    /// It returned an error.
    #[error("{task} failed")]
    Failed {
        /// Its name.
        task: &'static str,
        /// The error.
        #[source]
        source: BoxError,
    },
    /// It panicked.
    #[error("a task panicked")]
    Panicked(#[source] JoinError),
}

impl TaskExit {
    /// The name of the task; `None` for one that panicked.
    pub const fn task(&self) -> Option<&'static str> {
        match self {
            Self::Ended { task } | Self::Failed { task, .. } => Some(task),
            Self::Panicked(_) => None,
        }
    }
}

/// The tasks of one process, with names for error messages.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, Result<(), BoxError>)>,
}

impl Tasks {
    /// A set without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that cannot fail.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<_, Infallible>(())
        });
    }

    /// Starts a task that can fail.
    pub fn spawn_fallible<E>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: Into<BoxError> + 'static,
    {
        self.set
            .spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Waits for the first task that exits. Pending for ever where there is none left.
    ///
    /// # Cancel safety
    /// No exit is lost when the future is dropped.
    pub async fn next_exit(&mut self) -> TaskExit {
        match self.set.join_next().await {
            Some(Ok((task, Ok(())))) => TaskExit::Ended { task },
            Some(Ok((task, Err(source)))) => TaskExit::Failed { task, source },
            Some(Err(error)) => TaskExit::Panicked(error),
            None => std::future::pending().await,
        }
    }

    /// Waits until every task has exited, in whatever way: for a shutdown that has been announced to them.
    pub async fn join_all(&mut self) {
        while self.set.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exit_names_its_task_and_its_cause() {
        let mut tasks = Tasks::new();
        tasks.spawn("the reader", async {});
        assert_eq!(tasks.next_exit().await.to_string(), "the reader ended");

        tasks.spawn_fallible("the writer", async { Err(std::io::Error::other("no such disk")) });
        let exit = tasks.next_exit().await;
        assert_eq!(exit.task(), Some("the writer"));
        assert_eq!(crate::with_causes(&exit), "the writer failed: no such disk");

        tasks.spawn("the other", async { panic!("on purpose") });
        assert!(matches!(tasks.next_exit().await, TaskExit::Panicked(_)));
    }

    #[tokio::test]
    async fn a_set_without_tasks_reports_no_exit() {
        let mut tasks = Tasks::new();
        tokio::select! {
            biased;
            exit = tasks.next_exit() => panic!("{exit}"),
            () = tokio::task::yield_now() => {}
        }
        tasks.join_all().await;
    }
}
