//! Sources as in a cluster: behind a private certificate, behind a proxy, with a web identity.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_cache::listing::{ListOptions, Listing};
use millpond_cache::metrics::OriginMetrics;
use millpond_cache::source::{Clients, Environment, Source, SourceOptions};
use origin::{Credentials, Origin, OriginOptions};
use prometheus::Registry;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const BUCKET: &str = "data";

/// A server that forwards everything, and ends when it is dropped.
struct Front {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Front {
    /// Accepts connections, with this certificate if there is one, and forwards them to `to`.
    async fn start(to: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                open.spawn(async move {
                    match tls {
                        // A client that does not trust it disconnects.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => pass_on(stream, to).await,
                            Err(_refused) => {}
                        },
                        None => pass_on(stream, to).await,
                    }
                });
            }
        });
        Self {
            address,
            connections,
            _tasks: tasks,
        }
    }
}

async fn pass_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(to).await {
        // Either side may disconnect at any time.
        copy_bidirectional(&mut stream, &mut server).await.ok();
    }
}

/// An authority's certificate, and a server's TLS side with it.
fn authority() -> (String, TlsAcceptor) {
    millpond_process::tls::install();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a server's side");
    (cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

fn guarded() -> Origin {
    let origin = Origin::spawn(OriginOptions {
        credentials: Some(Credentials::new("key", "right")),
        ..OriginOptions::default()
    })
    .expect("an origin");
    origin.create_bucket(BUCKET);
    origin.put(BUCKET, "file", b"content".to_vec());
    origin
}

fn source(endpoint: String, options: &[(&str, &str)]) -> SourceOptions {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    SourceOptions {
        url: format!("s3://{BUCKET}"),
        endpoint: Some(endpoint),
        region: Some("us-east-1".to_owned()),
        options: options.iter().map(own).collect(),
        ..SourceOptions::default()
    }
}

const KEYS: [(&str, &str); 2] = [("aws_access_key_id", "key"), ("aws_secret_access_key", "right")];

/// Opens a source that may use nothing of this process, and lists it.
async fn list(options: &SourceOptions) -> Result<Vec<String>, String> {
    let source = Source::open_in(options, &Environment::default(), &Clients::default())
        .map_err(|error| error.to_string())?;
    let list = ListOptions {
        page_deadline: std::time::Duration::from_secs(2),
        ..ListOptions::default()
    };
    let metrics = OriginMetrics::new(&Registry::new()).expect("new names");
    let mut listing = Listing::start(Arc::new(source), list, metrics);
    let mut keys = Vec::new();
    while let Some(batch) = listing.next().await.map_err(|error| error.to_string())? {
        keys.extend(batch.objects.into_iter().map(|object| object.key));
    }
    Ok(keys)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_configured_and_nowhere_else() {
    let origin = guarded();
    let (pem, tls) = authority();
    let front = Front::start(origin.address(), Some(tls)).await;
    let plain = source(format!("https://localhost:{}", front.address.port()), &KEYS);
    assert!(list(&plain).await.is_err(), "no trusted authority signed it");
    let trusting = SourceOptions {
        ca_certificates: Some(pem),
        ..plain
    };
    assert_eq!(list(&trusting).await.unwrap(), ["file"]);
}

#[tokio::test]
async fn a_proxy_receives_the_requests_to_the_source() {
    let origin = guarded();
    let proxy = Front::start(origin.address(), None).await;
    let url = format!("http://{}", proxy.address);
    // A name that does not resolve: only the proxy knows the way.
    let options = [&KEYS[..], &[("proxy_url", url.as_str())]].concat();
    let through = source("http://source.invalid".to_owned(), &options);
    assert_eq!(list(&through).await.unwrap(), ["file"]);
    assert!(proxy.connections.load(Ordering::Relaxed) > 0);
}

/// A token service that issues the right keys for one token.
async fn token_service(token: &'static str, asked: Arc<AtomicU64>, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16 << 10];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            asked.fetch_add(1, Ordering::Relaxed);
            let is_right = request.contains("AssumeRoleWithWebIdentity")
                && request.contains(&format!("WebIdentityToken={token}"));
            let (status, body) = if is_right {
                let body = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                    <AccessKeyId>key</AccessKeyId><SecretAccessKey>right</SecretAccessKey>\
                    <SessionToken>session</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>\
                    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
                ("200 OK", body)
            } else {
                ("403 Forbidden", "")
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.ok();
            stream.write_all(body.as_bytes()).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn a_web_identity_token_is_exchanged_for_credentials() {
    let origin = guarded();
    let (pem, tls) = authority();
    let asked = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let service = token_service("right.web.token", Arc::clone(&asked), &mut tasks).await;
    let front = Front::start(service, Some(tls)).await;
    let sts = format!("https://localhost:{}", front.address.port());
    let with = |token: &str| SourceOptions {
        ca_certificates: Some(pem.clone()),
        web_identity_token: Some(token.to_owned()),
        ..source(
            origin.url(),
            &[
                ("aws_role_arn", "arn:aws:iam::1:role/reader"),
                ("aws_endpoint_url_sts", sts.as_str()),
            ],
        )
    };
    assert_eq!(list(&with("right.web.token")).await.unwrap(), ["file"]);
    assert!(asked.load(Ordering::Relaxed) > 0);
    let error = list(&with("another.web.token")).await.unwrap_err();
    assert!(!error.contains("another.web.token"), "{error}");
}

#[tokio::test]
async fn an_isolated_source_without_credentials_asks_without_any() {
    let origin = Origin::spawn(OriginOptions::default()).unwrap();
    origin.create_bucket(BUCKET);
    origin.put(BUCKET, "file", b"content".to_vec());
    assert_eq!(list(&source(origin.url(), &[])).await.unwrap(), ["file"]);
    let error = list(&source(guarded().url(), &[])).await.unwrap_err();
    assert!(error.contains("den"), "{error}");
}
