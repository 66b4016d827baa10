//! TLS before any of the doubles, with a certificate that nobody trusts unless told to.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};

/// A listener that takes TLS off and hands the rest to a double. Stops when dropped.
pub struct Tls {
    address: SocketAddr,
    pem: String,
    task: JoinHandle<()>,
}

impl Tls {
    /// Starts on a free port of the loopback, before the double at `address`.
    ///
    /// # Errors
    ///
    /// When there is no port, or no certificate can be made.
    pub async fn before(address: SocketAddr) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
            .map_err(io::Error::other)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // A client that does not trust us, or goes away, is its own affair.
                    let (Ok(mut outer), Ok(mut inner)) =
                        (acceptor.accept(stream).await, TcpStream::connect(address).await)
                    else {
                        return;
                    };
                    let _ = copy_bidirectional(&mut outer, &mut inner).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address: own, pem: made.cert.pem(), task })
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate to trust, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.task.abort();
    }
}
