//! Each fault does what it says, to the requests that it names and to no other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use origin::{Client, Fault, Kind, Origin, OriginOptions, Rule, data};

const BUCKET: &str = "faults";
const LEN: u64 = 1_000_000;
/// Only a hang takes this long.
const GUARD: Duration = Duration::from_secs(60);

async fn start() -> (Origin, Client) {
    let origin = Origin::start(OriginOptions::default()).await.unwrap();
    origin.put_generated(BUCKET, "object", 1, LEN);
    let client = Client::new(origin.url(), None);
    (origin, client)
}

/// Begins a GET of the object and leaves the body to the caller.
async fn begin(origin: &Origin) -> Response<Incoming> {
    let pool: Pool<HttpConnector, http_body_util::Empty<Bytes>> =
        Pool::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("{}/{BUCKET}/object", origin.url()));
    let request = request.body(http_body_util::Empty::new()).unwrap();
    tokio::time::timeout(GUARD, pool.request(request))
        .await
        .unwrap()
        .unwrap()
}

/// Reads a body until it ends, fails, or has `enough` bytes; gives the bytes and whether it failed.
async fn read(answer: Response<Incoming>, enough: usize) -> (Vec<u8>, bool, Incoming) {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < enough {
        match tokio::time::timeout(GUARD, body.frame())
            .await
            .expect("the body continues")
        {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => return (bytes, true, body),
            None => break,
        }
    }
    (bytes, false, body)
}

async fn get(client: &Client) -> origin::Reply {
    client.get(BUCKET, "object", &[]).await.unwrap()
}

#[tokio::test]
async fn slow_down_is_503_for_the_named_number_of_requests() {
    let (origin, client) = start().await;
    let rule = origin.faults().add(Rule::new(Fault::SlowDown).times(2));
    for expected in [503, 503, 200, 200] {
        let reply = get(&client).await;
        assert_eq!(reply.status.as_u16(), expected);
        assert_eq!(reply.element("Code") == "SlowDown", expected == 503);
    }
    assert_eq!(origin.faults().applied(rule), 2);
    assert_eq!(origin.counters().errors, 2);
}

#[tokio::test]
async fn gone_is_500_until_the_rule_is_removed() {
    let (origin, client) = start().await;
    let rule = origin.faults().add(Fault::Gone);
    assert_eq!(get(&client).await.status.as_u16(), 500);
    assert_eq!(client.list(BUCKET, &[]).await.unwrap().status.as_u16(), 500);
    origin.faults().remove(rule);
    assert_eq!(get(&client).await.status.as_u16(), 200);
}

#[tokio::test]
async fn other_keys_and_kinds_are_left_alone() {
    let (origin, client) = start().await;
    origin.put(BUCKET, "other", "other");
    origin.faults().add(
        Rule::new(Fault::Gone)
            .on(&[Kind::Get])
            .under(format!("{BUCKET}/obj")),
    );
    assert_eq!(get(&client).await.status.as_u16(), 500);
    assert_eq!(
        client.head(BUCKET, "object", &[]).await.unwrap().status.as_u16(),
        200
    );
    assert_eq!(
        client.get(BUCKET, "other", &[]).await.unwrap().status.as_u16(),
        200
    );
}

#[tokio::test]
async fn a_truncated_body_ends_early_and_its_length_says_so() {
    let (origin, _client) = start().await;
    origin.faults().add(Fault::Truncate { after: 300_000 });
    let answer = begin(&origin).await;
    assert_eq!(answer.headers()["content-length"], LEN.to_string().as_str());
    let (bytes, failed, _) = read(answer, usize::MAX).await;
    assert!(failed);
    assert!(bytes.len() <= 300_000);
    assert_eq!(data::check(1, 0, &bytes), Ok(()));
}

#[tokio::test]
async fn a_reset_body_fails() {
    let (origin, client) = start().await;
    origin.faults().add(Fault::Reset { after: 300_000 });
    let (bytes, failed, _) = read(begin(&origin).await, usize::MAX).await;
    assert!(failed);
    assert_eq!(data::check(1, 0, &bytes), Ok(()));
    origin.faults().clear();
    assert_eq!(get(&client).await.body.len() as u64, LEN);
}

#[tokio::test]
async fn a_stalled_body_goes_on_when_the_rule_is_removed() {
    let (origin, _client) = start().await;
    let rule = origin.faults().add(Fault::Stall { after: 200_000 });
    let (mut bytes, failed, mut body) = read(begin(&origin).await, 200_000).await;
    assert!(!failed);
    assert_eq!(bytes.len(), 200_000);
    origin.faults().remove(rule);
    while let Some(frame) = tokio::time::timeout(GUARD, body.frame()).await.unwrap() {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert_eq!(bytes.len() as u64, LEN);
    assert_eq!(data::check(1, 0, &bytes), Ok(()));
}

#[tokio::test]
async fn a_trickle_takes_its_time() {
    let (origin, client) = start().await;
    origin.put_generated(BUCKET, "object", 1, 20_000);
    origin.faults().add(Fault::Trickle {
        bytes_per_second: 100_000,
    });
    let begun = Instant::now();
    let reply = get(&client).await;
    // 20 pieces of 50 ms, of which the last is not waited for; a busy machine only makes it longer.
    assert!(
        begun.elapsed() >= Duration::from_millis(140),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(data::check(1, 0, &reply.body), Ok(()));
}

#[tokio::test]
async fn a_wrong_etag_is_on_the_answer_and_conditions_are_ignored() {
    let (origin, client) = start().await;
    let right = get(&client).await.header("etag").to_owned();
    origin.faults().add(Fault::WrongEtag);
    let reply = client
        .get(BUCKET, "object", &[("if-match", &right)])
        .await
        .unwrap();
    assert_eq!(reply.status.as_u16(), 200);
    assert_ne!(reply.header("etag"), right);
    assert_ne!(
        client.head(BUCKET, "object", &[]).await.unwrap().header("etag"),
        right
    );
}

#[tokio::test]
async fn a_wrong_length_is_whole_but_shorter_or_longer() {
    let (origin, client) = start().await;
    for by in [-1000, 1000] {
        origin.faults().clear();
        origin.faults().add(Fault::WrongLength { by });
        let reply = get(&client).await;
        assert_eq!(reply.body.len() as u64, LEN.saturating_add_signed(by));
        assert_eq!(reply.header("content-length"), reply.body.len().to_string());
        let right = reply.body.len().min(usize::try_from(LEN).unwrap());
        assert_eq!(data::check(1, 0, &reply.body[..right]), Ok(()));
        assert!(reply.body[right..].iter().all(|&byte| byte == 0));
    }
}

#[tokio::test]
async fn a_change_between_answers_the_old_and_then_has_the_new() {
    let (origin, client) = start().await;
    let rule = Rule::new(Fault::ChangeBetween).on(&[Kind::Get]).times(1);
    origin.faults().add(rule);
    let before = get(&client).await;
    assert_eq!(data::check(1, 0, &before.body), Ok(()));
    let etag = before.header("etag");
    let conditional = client.get(BUCKET, "object", &[("if-match", etag)]).await.unwrap();
    assert_eq!(conditional.status.as_u16(), 412);
    let after = get(&client).await;
    assert_eq!(after.body.len() as u64, LEN);
    assert_ne!(after.body, before.body);
    assert_ne!(after.header("last-modified"), before.header("last-modified"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_origin_refuses_and_comes_back_at_the_same_port() {
    let (origin, client) = start().await;
    assert_eq!(get(&client).await.status.as_u16(), 200);
    origin.disconnect();
    let error = tokio::net::TcpStream::connect(origin.address())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(client.get(BUCKET, "object", &[]).await.is_err());
    origin.reconnect();
    assert_eq!(get(&client).await.status.as_u16(), 200);
}

#[tokio::test]
async fn latency_comes_before_the_answer() {
    let (origin, client) = start().await;
    origin.set_latency(Duration::from_millis(50));
    let begun = Instant::now();
    get(&client).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn bandwidth_is_shared_by_all_answers() {
    let (origin, client) = start().await;
    origin.set_bandwidth(Some(10_000_000));
    let begun = Instant::now();
    futures::future::join_all((0..4).map(|_| get(&client))).await;
    // 4 MB at 10 MB/s, less the last pieces, which are not waited for.
    assert!(
        begun.elapsed() >= Duration::from_millis(350),
        "{:?}",
        begun.elapsed()
    );
}
