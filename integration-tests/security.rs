//! TLS and SASL through `bus.properties`, on a broker with a listener for each.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use crate::kafka::{Broker, BrokerSettings, free_port};
use crate::support::config::Config;
use crate::support::line::Line;
use crate::support::process::Panoptes;

/// A certificate authority, and a broker and a client that it vouches for.
struct Certificates(TempDir);

impl Certificates {
    fn issue() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        certificates.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        );
        for name in ["broker", "client"] {
            certificates.openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj /CN={name} -addext subjectAltName=IP:127.0.0.1 \
                 -keyout {name}.key -out {name}.csr"
            ));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -copy_extensions copy -out {name}.pem"
            ));
        }
        let key = std::fs::read_to_string(certificates.path("broker.key")).unwrap();
        let chain = std::fs::read_to_string(certificates.path("broker.pem")).unwrap();
        std::fs::write(certificates.path("broker-keystore.pem"), key + &chain).unwrap();
        certificates
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .current_dir(self.0.path())
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        path_text(&self.path(name))
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A broker that listens in plain text (for the tests' own clients), with SASL, and with TLS.
struct SecuredBroker {
    broker: Broker,
    certificates: Certificates,
    sasl_port: u16,
    tls_port: u16,
    sasl_tls_port: u16,
}

static SECURED: LazyLock<SecuredBroker> = LazyLock::new(|| {
    let certificates = Certificates::issue();
    let [sasl_port, tls_port, sasl_tls_port] = [free_port(), free_port(), free_port()];
    let broker = Broker::start_with(
        "secured",
        BrokerSettings {
            listeners: vec![
                ("SASL", "SASL_PLAINTEXT", sasl_port),
                ("TLS", "SSL", tls_port),
                ("SASLTLS", "SASL_SSL", sasl_tls_port),
            ],
            scram: Some("SCRAM-SHA-256=[name=alice,password=secret]".to_owned()),
            properties: properties(&certificates),
            ..BrokerSettings::default()
        },
    );
    SecuredBroker {
        broker,
        certificates,
        sasl_port,
        tls_port,
        sasl_tls_port,
    }
});

fn properties(certificates: &Certificates) -> Vec<String> {
    let module = "org.apache.kafka.common.security";
    let mut properties = vec![
        "ssl.keystore.type=PEM".to_owned(),
        format!(
            "ssl.keystore.location={}",
            certificates.text("broker-keystore.pem")
        ),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", certificates.text("ca.pem")),
        "listener.name.tls.ssl.client.auth=required".to_owned(),
        "listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN,OAUTHBEARER".to_owned(),
        "listener.name.sasltls.sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN".to_owned(),
        format!(
            "listener.name.sasl.oauthbearer.sasl.jaas.config=\
             {module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
        ),
    ];
    for listener in ["sasl", "sasltls"] {
        properties.push(format!(
            "listener.name.{listener}.scram-sha-256.sasl.jaas.config=\
             {module}.scram.ScramLoginModule required;"
        ));
        properties.push(format!(
            "listener.name.{listener}.plain.sasl.jaas.config=\
             {module}.plain.PlainLoginModule required user_bob=\"secret\";"
        ));
    }
    properties
}

/// Scores a part over a listener.
fn score_a_part(name: &str, port: u16, secure: impl FnOnce(Config) -> Config) {
    let line = Line::with_views(&SECURED.broker, name, &["top", "side"]);
    let config = secure(
        line.config()
            .set("bus.brokers", format!("127.0.0.1:{port}")),
    );
    let panoptes = Panoptes::run(&config, name);
    line.send(line.part("part-1", 1));
    line.await_parts(1);
    panoptes.stop_in_order();
    assert!(!line.outcomes().result_of("part-1").is_partial);
}

fn with_password(config: Config, mechanism: &str, user: &str) -> Config {
    config
        .property("security.protocol", "sasl_plaintext")
        .property("sasl.mechanism", mechanism)
        .property("sasl.username", user)
        .property("sasl.password", "secret")
}

#[test]
fn parts_are_scored_over_sasl_scram() {
    score_a_part("over-scram", SECURED.sasl_port, |config| {
        with_password(config, "SCRAM-SHA-256", "alice")
    });
}

#[test]
fn parts_are_scored_over_sasl_plain_inside_tls() {
    score_a_part("over-plain-tls", SECURED.sasl_tls_port, |config| {
        with_password(config, "PLAIN", "bob")
            .property("security.protocol", "sasl_ssl")
            .property("ssl.ca.location", &SECURED.certificates.text("ca.pem"))
    });
}

#[test]
fn parts_are_scored_over_mutual_tls() {
    let certificates = &SECURED.certificates;
    score_a_part("over-tls", SECURED.tls_port, |config| {
        config
            .property("security.protocol", "ssl")
            .property("ssl.ca.location", &certificates.text("ca.pem"))
            .property("ssl.certificate.location", &certificates.text("client.pem"))
            .property("ssl.key.location", &certificates.text("client.key"))
    });
}

#[test]
fn parts_are_scored_over_sasl_oauthbearer() {
    score_a_part("over-oauthbearer", SECURED.sasl_port, |config| {
        config
            .property("security.protocol", "sasl_plaintext")
            .property("sasl.mechanism", "OAUTHBEARER")
            .property("enable.sasl.oauthbearer.unsecure.jwt", "true")
            .property("sasl.oauthbearer.config", "principal=carol")
    });
}

#[test]
fn a_wrong_password_never_becomes_ready_and_is_not_logged() {
    let line = Line::with_views(&SECURED.broker, "wrong-password", &["top"]);
    let config = with_password(line.config(), "SCRAM-SHA-256", "alice")
        .set("bus.brokers", format!("127.0.0.1:{}", SECURED.sasl_port))
        .property("sasl.password", "not-the-password");
    let panoptes = Panoptes::start(&config, "wrong-password");
    panoptes.await_log("uthentication");
    if let Some((status, _)) = panoptes.get("/readyz") {
        assert_eq!(status, 503);
    }
    assert!(!panoptes.log_text().contains("not-the-password"));
    panoptes.kill();
}
