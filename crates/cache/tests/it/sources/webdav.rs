//! A WebDAV server as a source. Its responses are written out here: what differs between servers is the point.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_cache::fetch::{FetchError, Origin, Priority, Request};
use millpond_cache::listing::{ListError, ListOptions, ListedObject, Listing, RefusedBecause};
use millpond_cache::metrics::OriginMetrics;
use millpond_cache::source::{Source, SourceOptions};
use millpond_core::{Time, Validator};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::sources::rig::long_timeouts;

const WHEN: &str = "Wed, 01 May 2024 10:00:00 GMT";
/// Until when an object of that second may have been changed.
const END_OF_WHEN: &str = "Wed, 01 May 2024 10:00:01 GMT";
const WHEN_TIME: Time = Time {
    secs: 1_714_557_600,
    nanos: 0,
};

/// Canned responses by method and path. The head of each request is recorded.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answers: &[(&str, String)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<BTreeMap<String, String>> = Arc::new(
            answers
                .iter()
                .map(|(asked, answer)| ((*asked).to_owned(), answer.clone()))
                .collect(),
        );
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&answers), Arc::clone(&seen)));
            }
        });
        Self {
            url,
            requests,
            _tasks: tasks,
        }
    }

    fn source(&self, path: &str) -> Arc<Source> {
        let options = SourceOptions {
            url: format!("{}{path}", self.url),
            ..SourceOptions::default()
        };
        Arc::new(Source::open(&options).unwrap())
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<BTreeMap<String, String>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut reader = BufReader::new(&mut stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    // None of the requests has a body of interest.
    let mut rest = vec![0; reader.buffer().len()];
    if reader.read_exact(&mut rest).await.is_err() {
        return;
    }
    let asked: Vec<&str> = head.split(' ').take(2).collect();
    let missing = answer("404 Not Found", "", "gone");
    let reply = answers.get(&asked.join(" ")).unwrap_or(&missing).clone();
    seen.lock().push(head);
    drop(stream.write_all(reply.as_bytes()).await);
    drop(stream.shutdown().await);
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn response(href: &str, properties: &str) -> String {
    format!(
        "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{properties}</D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
    )
}

const COLLECTION: &str = "<D:resourcetype><D:collection/></D:resourcetype>";

fn file(size: u64, etag: &str) -> String {
    format!(
        "<D:resourcetype/><D:getcontentlength>{size}</D:getcontentlength>\
         <D:getlastmodified>{WHEN}</D:getlastmodified>{etag}"
    )
}

fn multistatus(responses: &[String]) -> String {
    let body = format!(
        "<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">{}</D:multistatus>",
        responses.concat()
    );
    answer("207 Multi-Status", "Content-Type: application/xml\r\n", &body)
}

fn metrics() -> OriginMetrics {
    OriginMetrics::new(&Registry::new()).unwrap()
}

async fn list(source: &Arc<Source>) -> Result<(Vec<ListedObject>, Vec<(String, RefusedBecause)>), ListError> {
    let mut listing = Listing::start(Arc::clone(source), ListOptions::default(), metrics());
    let (mut objects, mut refused) = (Vec::new(), Vec::new());
    while let Some(batch) = listing.next().await? {
        objects.extend(batch.objects);
        refused.extend(
            batch
                .refused
                .into_iter()
                .map(|refused| (refused.key, refused.reason)),
        );
    }
    objects.sort_by(|one, other| one.key.cmp(&other.key));
    Ok((objects, refused))
}

async fn read(source: &Arc<Source>, object: &ListedObject) -> Result<Vec<u8>, FetchError> {
    let request = Request {
        key: object.key.clone(),
        validator: object.validator.clone(),
        size_bytes: object.size_bytes,
        range: 0..object.size_bytes,
        priority: Priority::Reader,
    };
    let origin = Origin::new(Arc::clone(source), long_timeouts(), metrics());
    origin.fetch(request).await.map(|chunks| chunks.concat())
}

#[tokio::test]
async fn collections_are_walked_and_files_read_by_the_best_validator_they_have() {
    let server = Server::start(&[
        (
            "PROPFIND /data",
            multistatus(&[
                response("/data/", COLLECTION),
                response("/data/a%20b", &file(5, "<D:getetag>\"strong\"</D:getetag>")),
                response("/data/sub/", COLLECTION),
                response("/data/x%2Fy", &file(1, "")),
            ]),
        ),
        (
            "PROPFIND /data/sub",
            multistatus(&[
                response("/data/sub/", COLLECTION),
                response("/data/sub/w", &file(4, "<D:getetag>W/\"weak\"</D:getetag>")),
            ]),
        ),
        (
            "GET /data/a%20b",
            answer("200 OK", "ETag: \"strong\"\r\n", "hello"),
        ),
        (
            "GET /data/sub/w",
            answer("200 OK", &format!("Last-Modified: {WHEN}\r\n"), "weak"),
        ),
    ])
    .await;
    let source = server.source("/data/");
    assert_eq!(
        (source.prefix(), source.identity().ends_with("/data/")),
        ("data/", true)
    );
    let (objects, refused) = list(&source).await.unwrap();
    let keys: Vec<&str> = objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["data/a b", "data/sub/w"]);
    assert_eq!(refused, [("data/x/y".to_owned(), RefusedBecause::NotUnicode)]);
    assert_eq!(objects[0].validator, Validator::ETag("\"strong\"".to_owned()));
    assert_eq!(objects[1].validator, Validator::Modified { time: WHEN_TIME });
    assert_eq!(read(&source, &objects[0]).await.unwrap(), b"hello");
    assert_eq!(read(&source, &objects[1]).await.unwrap(), b"weak");
    let requests = server.requests.lock().join("\n").to_ascii_lowercase();
    assert!(requests.contains("if-match: \"strong\""), "{requests}");
    assert!(
        requests.contains(&format!("if-unmodified-since: {END_OF_WHEN}").to_ascii_lowercase()),
        "{requests}"
    );
}

#[tokio::test]
async fn a_file_without_etag_that_is_newer_or_longer_has_changed() {
    let newer = "Last-Modified: Wed, 01 May 2024 10:00:01 GMT\r\n";
    let server = Server::start(&[
        ("GET /newer", answer("200 OK", newer, "data")),
        (
            "GET /longer",
            answer("200 OK", &format!("Last-Modified: {WHEN}\r\n"), "datum"),
        ),
    ])
    .await;
    let source = server.source("/");
    for key in ["newer", "longer", "gone"] {
        let object = ListedObject {
            key: key.to_owned(),
            size_bytes: 4,
            modified: WHEN_TIME,
            validator: Validator::Modified { time: WHEN_TIME },
        };
        assert_eq!(
            read(&source, &object).await,
            Err(FetchError::Changed { key: key.to_owned() })
        );
    }
}

#[tokio::test]
async fn a_server_without_propfind_is_an_error_that_names_it() {
    let page = answer(
        "200 OK",
        "Content-Type: text/html\r\n",
        "<html><body>Index of /</body></html>",
    );
    for reply in [
        page,
        answer("405 Method Not Allowed", "", ""),
        answer("501 Not Implemented", "", ""),
    ] {
        let server = Server::start(&[("PROPFIND /", reply)]).await;
        let error = list(&server.source("/")).await.unwrap_err();
        assert!(matches!(&error, ListError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("PROPFIND"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error() {
    let server = Server::start(&[]).await;
    let error = list(&server.source("/nowhere")).await.unwrap_err();
    assert!(matches!(error, ListError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_server_without_ranges_cannot_serve_a_part() {
    let server = Server::start(&[("GET /a", answer("200 OK", "ETag: \"e\"\r\n", "data"))]).await;
    let origin = Origin::new(server.source("/"), long_timeouts(), metrics());
    let request = Request {
        key: "a".to_owned(),
        validator: Validator::ETag("\"e\"".to_owned()),
        size_bytes: 4,
        range: 1..3,
        priority: Priority::Reader,
    };
    let error = origin.fetch(request).await.unwrap_err();
    assert!(error.to_string().contains("ranges"), "{error}");
}
