//! The body of an answer: pieces of an object, with the faults and the pace that were decided for it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::counters::Meter;
use crate::fault::{Cut, End, Trickle};
use crate::object::Body;
use crate::pace::Pace;
use crate::serve::Connection;

/// Bytes in one piece where nothing slows the answer down. Mapped bytes cost nothing to slice; this bounds what
/// generated data takes for each answer.
const PIECE_BYTES: u64 = 512 * 1024;
/// What the connection gets to send the last bytes before it is cut.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// A body that is being sent.
pub(crate) struct Content {
    body: Body,
    at: u64,
    end: u64,
    /// Zeros after the end.
    padding: u64,
    sent: u64,
    meter: Option<Meter>,
    line: Option<Line>,
    wait: Option<Wait>,
}

/// What makes an answer slow or broken.
struct Line {
    pace: Arc<Pace>,
    trickle: Option<Trickle>,
    cut: Option<Cut>,
    connection: Arc<Connection>,
}

enum Wait {
    Pause(Pin<Box<Sleep>>),
    /// The last pause before the end.
    Last(Pin<Box<Sleep>>),
    Stalled(Pin<Box<WaitForCancellationFutureOwned>>),
}

impl Content {
    /// The bytes of `range` of `body`.
    pub(crate) fn new(body: Body, range: std::ops::Range<u64>, meter: Option<Meter>) -> Self {
        let end = range.end.min(body.len());
        Self {
            body,
            at: range.start,
            end,
            padding: 0,
            sent: 0,
            meter,
            line: None,
            wait: None,
        }
    }

    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let body = Body::Bytes(bytes.into());
        let len = body.len();
        Self::new(body, 0..len, None)
    }

    pub(crate) fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    /// Bytes yet to come.
    pub(crate) fn remaining(&self) -> u64 {
        self.end - self.at + self.padding
    }

    /// Makes the body longer by zeros or shorter at its end.
    pub(crate) fn lengthen(&mut self, by: i64) {
        let less = by.min(0).unsigned_abs().min(self.end - self.at);
        self.end -= less;
        self.padding = by.max(0).unsigned_abs();
    }

    /// Sends the body at this pace and with these faults.
    pub(crate) fn over(
        &mut self,
        pace: &Arc<Pace>,
        trickle: Option<Trickle>,
        cut: Option<Cut>,
        connection: &Arc<Connection>,
    ) {
        if trickle.is_some() || cut.is_some() || pace.piece_bytes().is_some() {
            let (pace, connection) = (Arc::clone(pace), Arc::clone(connection));
            self.line = Some(Line {
                pace,
                trickle,
                cut,
                connection,
            });
        }
    }

    /// Waits out a pause; the error that ends a cut body comes from here.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wait {
            None => return Poll::Ready(Ok(())),
            Some(Wait::Pause(sleep)) => ready!(sleep.as_mut().poll(context)),
            Some(Wait::Last(sleep)) => {
                ready!(sleep.as_mut().poll(context));
                return Poll::Ready(Err(io::Error::other("the body was cut by a fault")));
            }
            Some(Wait::Stalled(released)) => {
                ready!(released.as_mut().poll(context));
                if let Some(line) = &mut self.line {
                    line.cut = None;
                }
            }
        }
        self.wait = None;
        Poll::Ready(Ok(()))
    }

    /// Begins the end of a body that is to be cut here.
    fn reach_cut(&mut self) -> bool {
        let Some(line) = &mut self.line else { return false };
        let Some(cut) = &line.cut else { return false };
        if self.sent < cut.after {
            return false;
        }
        self.wait = Some(match &cut.end {
            End::Stall(removed) => Wait::Stalled(Box::pin(removed.clone().cancelled_owned())),
            End::Close => Wait::Last(Box::pin(tokio::time::sleep(BEFORE_CUT))),
            End::Reset => {
                line.connection.reset_on_close();
                Wait::Last(Box::pin(tokio::time::sleep(BEFORE_CUT)))
            }
        });
        true
    }

    fn piece_bytes(&self) -> u64 {
        let Some(line) = &self.line else {
            return PIECE_BYTES;
        };
        let by_pace = line.pace.piece_bytes().unwrap_or(PIECE_BYTES);
        let by_trickle = line.trickle.map_or(PIECE_BYTES, |trickle| trickle.piece_bytes);
        let by_cut = line.cut.as_ref().map_or(PIECE_BYTES, |cut| cut.after - self.sent);
        PIECE_BYTES.min(by_pace).min(by_trickle).min(by_cut)
    }

    fn next_piece(&mut self) -> Bytes {
        let count = self.piece_bytes().min(self.remaining());
        let of_object = count.min(self.end - self.at);
        let piece = if of_object > 0 {
            let piece = self.body.slice(self.at..self.at + of_object);
            self.at += of_object;
            piece
        } else {
            self.padding -= count;
            crate::data::zeros(count)
        };
        let count = piece.len() as u64;
        self.sent += count;
        if let Some(meter) = &self.meter {
            meter.sent(count);
        }
        if let Some(line) = &self.line {
            let by_pace = line.pace.send(count, Instant::now());
            let by_trickle = line.trickle.map(|trickle| trickle.pause);
            let pause = by_pace.max(by_trickle);
            self.wait = pause.map(|pause| Wait::Pause(Box::pin(tokio::time::sleep(pause))));
        }
        piece
    }
}

impl hyper::body::Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let content = &mut *self;
        loop {
            if let Err(cut) = ready!(content.poll_wait(context)) {
                return Poll::Ready(Some(Err(cut)));
            }
            if content.remaining() == 0 {
                return Poll::Ready(None);
            }
            if !content.reach_cut() {
                return Poll::Ready(Some(Ok(Frame::data(content.next_piece()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}
