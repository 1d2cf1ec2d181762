//! Buckets and their objects, ordered by key as S3 lists them: by bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;

use crate::error::Code;
use crate::object::{Body, Object};

/// The objects of a bucket.
pub(crate) type Objects = BTreeMap<Vec<u8>, Arc<Object>>;

/// All buckets. No call blocks on anything but the lock, which is held for single look-ups and for a page of a list.
#[derive(Debug, Default)]
pub(crate) struct Store {
    buckets: RwLock<BTreeMap<String, Objects>>,
}

impl Store {
    /// Makes a bucket; false if it is there.
    pub(crate) fn create_bucket(&self, bucket: &str) -> bool {
        let mut buckets = self.buckets.write();
        let absent = !buckets.contains_key(bucket);
        if absent {
            buckets.insert(bucket.to_owned(), Objects::new());
        }
        absent
    }

    pub(crate) fn has_bucket(&self, bucket: &str) -> Result<(), Code> {
        if self.buckets.read().contains_key(bucket) {
            Ok(())
        } else {
            Err(Code::NoSuchBucket)
        }
    }

    pub(crate) fn get(&self, bucket: &str, key: &[u8]) -> Result<Arc<Object>, Code> {
        let buckets = self.buckets.read();
        let objects = buckets.get(bucket).ok_or(Code::NoSuchBucket)?;
        objects.get(key).map(Arc::clone).ok_or(Code::NoSuchKey)
    }

    /// Puts an object into a bucket that exists, if `allowed` agrees with what it replaces.
    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &[u8],
        object: Object,
        allowed: impl FnOnce(Option<&Object>) -> Result<(), Code>,
    ) -> Result<(), Code> {
        let mut buckets = self.buckets.write();
        let objects = buckets.get_mut(bucket).ok_or(Code::NoSuchBucket)?;
        allowed(objects.get(key).map(AsRef::as_ref))?;
        objects.insert(key.to_vec(), Arc::new(object));
        Ok(())
    }

    /// Puts objects into a bucket, which is made if need be.
    pub(crate) fn put_all(&self, bucket: &str, objects: impl IntoIterator<Item = (Vec<u8>, Object)>) {
        let mut buckets = self.buckets.write();
        let bucket = buckets.entry(bucket.to_owned()).or_default();
        bucket.extend(objects.into_iter().map(|(key, object)| (key, Arc::new(object))));
    }

    /// Replaces an object by one that differs in ETag and time; false if there is none.
    pub(crate) fn change(&self, bucket: &str, key: &[u8], body: impl FnOnce(&Object) -> Body) -> bool {
        let mut buckets = self.buckets.write();
        let Some(object) = buckets.get_mut(bucket).and_then(|objects| objects.get_mut(key)) else {
            return false;
        };
        let later = SystemTime::now().max(object.modified + Duration::from_secs(1));
        *object = Arc::new(Object::new(body(object), later));
        true
    }

    /// Removes an object; false if it was not there.
    pub(crate) fn delete(&self, bucket: &str, key: &[u8]) -> Result<bool, Code> {
        let mut buckets = self.buckets.write();
        let objects = buckets.get_mut(bucket).ok_or(Code::NoSuchBucket)?;
        Ok(objects.remove(key).is_some())
    }

    /// Reads a bucket's objects under the lock.
    pub(crate) fn objects<T>(&self, bucket: &str, read: impl FnOnce(&Objects) -> T) -> Result<T, Code> {
        self.buckets
            .read()
            .get(bucket)
            .map(read)
            .ok_or(Code::NoSuchBucket)
    }
}
