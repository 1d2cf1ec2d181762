//! The files of a catalog as a stream.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::BytesMut;
use millpond_wire::worker::CatalogChunk;
use tokio::sync::mpsc;
use tonic::Status;

const CHUNK_BYTES: usize = 1 << 20;

/// Most queued chunks.
const CHUNK_QUEUE_CAPACITY: usize = 4;

/// Opens a file and reads it in chunks. A catalog that is deleted meanwhile is still read to its end.
///
/// # Errors
/// If it does not exist any more.
pub(super) fn stream(path: &Path) -> std::io::Result<mpsc::Receiver<Result<CatalogChunk, Status>>> {
    let mut file = File::open(path)?;
    let (sender, chunks) = mpsc::channel(CHUNK_QUEUE_CAPACITY);
    // It ends with the file or with the receiver.
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
            let next = match file.read(&mut chunk) {
                Ok(0) => return,
                Ok(length) => {
                    chunk.truncate(length);
                    Ok(CatalogChunk { data: chunk.freeze() })
                }
                Err(error) => Err(Status::internal(format!("failed to read a catalog: {error}"))),
            };
            let failed = next.is_err();
            if sender.blocking_send(next).is_err() || failed {
                return;
            }
        }
    });
    Ok(chunks)
}
