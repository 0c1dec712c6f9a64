//! The listener with certificates: a client certificate replaces the secret.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use sluice::App;
use sluice::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::common::{OPERATOR, SECRET, ask, frame, plan, serve_config};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, PEM.
pub(crate) fn issue(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // OpenSSL takes a certificate that is named like its authority for one of its own making.
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

struct Server {
    address: std::net::SocketAddr,
    roots: Arc<RootCertStore>,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
    _data: tempfile::TempDir,
}

async fn server(clients: &Authority) -> Server {
    let data = tempfile::tempdir().unwrap();
    let ours = authority();
    let (cert, key) = issue(&ours, "localhost");
    let write = |name: &str, text: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = json!({
        "cert": write("cert.pem", &cert),
        "key": write("key.pem", &key),
        "client_ca": write("clients.pem", &clients.pem()),
    });
    let config = serve_config(data.path(), &json!({"tls": tls}));
    let app = App::open(config, Clock::System).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(sluice::server::serve(listener, app, async {
        let _ = stopped.await;
    }));
    let mut roots = RootCertStore::empty();
    roots.add(ours.der().clone()).unwrap();
    Server {
        address,
        roots: Arc::new(roots),
        stop,
        running,
        _data: data,
    }
}

impl Server {
    /// The answer's status, or the error of the handshake.
    async fn call(
        &self,
        certificate: Option<&(String, String)>,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<StatusCode> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone());
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?,
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?.status())
    }
}

fn admit(token: Option<&str>) -> Request<Full<Bytes>> {
    let body = frame(&ask(1, vec![plan(None, vec![])]), b"");
    let mut request = Request::post("/v1/admit")
        .header("host", "localhost")
        .header("x-sluice-wire", sluice_wire::VERSION);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::new(Bytes::from(body))).unwrap()
}

fn report(token: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::get("/report").header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_client_certificate_of_the_configs_authority_replaces_the_secret_and_nothing_else_does() {
    let clients = authority();
    let server = server(&clients).await;
    let known = issue(&clients, "filter");
    let stranger = issue(&authority(), "filter");

    let status = server.call(Some(&known), admit(None)).await.unwrap();
    assert_eq!(status, 200, "a certificate alone");
    let status = server.call(None, admit(Some(SECRET))).await.unwrap();
    assert_eq!(status, 200, "the secret alone");
    let status = server.call(None, admit(None)).await.unwrap();
    assert_eq!(status, 401, "neither");
    assert!(
        server
            .call(Some(&stranger), admit(Some(SECRET)))
            .await
            .is_err(),
        "another authority's certificate is refused, not ignored"
    );

    let status = server.call(None, report(Some(OPERATOR))).await.unwrap();
    assert_eq!(status, 200, "an operator needs no certificate");
    let status = server.call(Some(&known), report(None)).await.unwrap();
    assert_eq!(status, 401, "a filter's certificate opens no report");

    server.stop.send(()).unwrap();
    server.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named() {
    let data = tempfile::tempdir().unwrap();
    let empty = data.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (cert, part) in [
        (
            empty.as_path(),
            "serve.tls.cert: expected a certificate in PEM, found none",
        ),
        (Path::new("missing.pem"), "serve.tls.cert: missing.pem"),
    ] {
        let tls = json!({"cert": cert, "key": "missing.pem"});
        let config = serve_config(data.path(), &json!({"tls": tls}));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = sluice::run(listener, config, async {}).await.unwrap_err();
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }
}
