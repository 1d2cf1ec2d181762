//! The bucket, filled through the S3 API.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use harness::S3Server;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use origin::{Client, Credentials};

use super::dataset::{DataSet, File, checksum};
use crate::interrupt::Interrupt;

/// Its name.
pub(crate) const BUCKET: &str = "imagenet";

/// Of the whole data set.
const MAX_CONCURRENT_UPLOADS: usize = 16;

/// Larger files go up in parts of this size.
const PART_BYTES: u64 = 16 << 20;

/// Of one file.
const MAX_CONCURRENT_PARTS: usize = 4;

/// Requires that the server checks credentials, so that what is shown with them means something.
pub(crate) async fn require_authentication(server: &S3Server) -> Result<()> {
    let wrong = Credentials::new(&server.credentials().access_key, "not-the-secret");
    let reply = Client::new(server.url(), Some(wrong)).list(BUCKET, &[]).await?;
    let code = reply.element("Code");
    if code != "SignatureDoesNotMatch" {
        bail!(
            "the S3 server answers a wrong secret with {} {code}",
            reply.status
        );
    }
    Ok(())
}

/// Uploads all files; the checksum of each, in the order of the data set.
pub(crate) async fn fill(server: &S3Server, data: &DataSet, interrupt: &Interrupt) -> Result<Vec<u64>> {
    let store = Arc::new(client(server)?);
    let uploads = data.files.iter().map(|file| {
        let store = Arc::clone(&store);
        async move {
            interrupt.check()?;
            upload(&store, file, interrupt)
                .await
                .with_context(|| format!("failed to upload {}", file.key))
        }
    });
    futures::stream::iter(uploads)
        .buffered(MAX_CONCURRENT_UPLOADS)
        .try_collect()
        .await
}

async fn upload(store: &AmazonS3, file: &File, interrupt: &Interrupt) -> Result<u64> {
    let path = Path::parse(&file.key)?;
    let mut sum = checksum();
    if file.size_bytes <= PART_BYTES {
        let content = file.part(0, file.size_bytes);
        sum.update(&content);
        store.put(&path, PutPayload::from(content)).await?;
        return Ok(sum.finalize());
    }
    let part_bytes = usize::try_from(PART_BYTES)?;
    let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(&path).await?, part_bytes);
    let mut offset = 0;
    while offset < file.size_bytes {
        interrupt.check()?;
        let part = file.part(offset, PART_BYTES);
        sum.update(&part);
        offset += PART_BYTES;
        writer.wait_for_capacity(MAX_CONCURRENT_PARTS).await?;
        writer.put(part);
    }
    writer.finish().await?;
    Ok(sum.finalize())
}

fn client(server: &S3Server) -> Result<AmazonS3> {
    AmazonS3Builder::new()
        .with_endpoint(server.url())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(&server.credentials().access_key)
        .with_secret_access_key(&server.credentials().secret_key)
        // The server is on the loopback: checking a hash of what is uploaded would only take time.
        .with_unsigned_payload(true)
        .build()
        .context("failed to make an S3 client")
}
