//! Tasks of a process: each must run as long as the process.
//!
//! A task that exits, with an error, by itself or by a panic, is a reason to end the process, so that its supervisor or the
//! kubelet restarts it. [`Tasks::next_exit`] returns which one and why. Dropping the set aborts its tasks.

use std::convert::Infallible;
use std::future::Future;

use tokio::task::{JoinError, JoinSet};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Unexpected exit of a task.
#[derive(Debug, thiserror::Error)]
pub enum TaskExit {
    /// It returned without a shutdown.
    #[error("{task} exited")]
    Ended {
        /// Name of the task.
        task: &'static str,
    },
    /// It returned an error.
    #[error("{task} failed")]
    Failed {
        /// Name of the task.
        task: &'static str,
        /// Error of the task.
        #[source]
        source: BoxError,
    },
    /// It panicked.
    #[error("a task panicked")]
    Panicked(#[source] JoinError),
}

impl TaskExit {
    /// Returns the name of the task; `None`: it panicked.
    pub const fn task(&self) -> Option<&'static str> {
        match self {
            Self::Ended { task } | Self::Failed { task, .. } => Some(task),
            Self::Panicked(_) => None,
        }
    }
}

/// Tasks of one process, with names for error messages.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, Result<(), BoxError>)>,
}

impl Tasks {
    /// Returns a set without tasks.
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

    /// Waits for the first task that exits. Never returns if none is left.
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

    /// Waits until every task has exited, in any way: for a shutdown that was signalled to them.
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
        assert_eq!(tasks.next_exit().await.to_string(), "the reader exited");

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
