//! What is sent, and to whom.

use logwarden_core::source::LogSource as _;
use logwarden_loki_source::{Auth, Credential, Standing};
use logwarden_tests::loki::Fault;

use crate::{MINUTE, NOW, SECOND, budget, builder, fake};

const QUERY: &str = r#"{job="app"}"#;

#[tokio::test]
async fn a_request_is_exact_and_polite() {
    let loki = fake().await;
    let source = builder(&format!("{}/api/logs/v1/app/", loki.url()), &[QUERY])
        .header("X-Extra", "yes".to_owned().into())
        .build()
        .expect("a source");
    source.read(None, &Default::default(), budget(100)).await.expect("a page");
    let request = loki.requests().remove(0);
    let mut shown: Vec<String> = request.params.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    shown.extend(request.headers.iter().filter(|(n, _)| n != "host").map(|(name, value)| format!("{name}: {value}")));
    insta::assert_snapshot!(shown.join("\n"), @r#"
    query: {job="app"}
    start: 1795211717000000000
    end: 1795212007000000000
    limit: 100
    direction: forward
    x-loki-response-encoding-flags: categorize-labels
    x-query-tags: Source=logwarden
    cache-control: no-cache
    x-extra: yes
    accept: */*
    user-agent: logwarden/0.1.0
    accept-encoding: gzip
    "#);
}

#[tokio::test]
async fn the_base_path_is_kept_and_an_endpoint_in_the_url_is_understood() {
    let loki = fake().await;
    for path in ["", "/", "/loki/api/v1/query_range", "/base", "/base/loki/api/v1/"] {
        let source = builder(&format!("{}{path}", loki.url()), &[QUERY]).build().expect("a source");
        source.read(None, &Default::default(), budget(100)).await.expect("a page");
        assert_eq!(loki.requests()[0].path, "/loki/api/v1/query_range", "{path}");
    }
    let source = builder(&format!("{}/a/", loki.url().replace("http://", "http://u:p@")), &[QUERY]).build();
    let source = source.expect("a source");
    assert_eq!(source.id().0, format!("loki {}/a", loki.url()));
}

#[tokio::test]
async fn several_tenants_are_sent_and_kept_apart() {
    let loki = fake().await;
    loki.faults(|faults| {
        faults.auth_enabled = true;
        faults.multi_tenant = true;
    });
    for tenant in ["a", "b"] {
        loki.push(tenant, &[("job", "app")], NOW - MINUTE, "same line");
    }
    let source = builder(&loki.url(), &[QUERY]).tenants(vec!["a".into(), "b".into()]).build().expect("a source");
    let page = source.read(None, &Default::default(), budget(100)).await.expect("a page");
    assert_eq!(page.lines.len(), 2);
    assert_eq!(loki.requests()[0].header("x-scope-orgid"), Some("a|b"));
}

#[tokio::test]
async fn a_password_in_the_url_is_sent_as_basic() {
    let loki = fake().await;
    loki.faults(|faults| faults.authorization = Some("Basic dTpwJndvcmQ=".into()));
    let source = builder(&loki.url().replace("http://", "http://u:p%26word@"), &[QUERY]).build().expect("a source");
    source.read(None, &Default::default(), budget(100)).await.expect("a page");
}

#[tokio::test]
async fn a_token_in_a_file_is_read_again_when_it_is_refused() {
    let loki = fake().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "old-token\n").expect("written");
    loki.faults(|faults| faults.authorization = Some("Bearer old-token".into()));
    let token = Auth::Bearer(Credential::File(file.path().into()));
    let source = builder(&loki.url(), &[QUERY]).auth(token).build().expect("a source");
    source.read(None, &Default::default(), budget(100)).await.expect("a page");
    std::fs::write(file.path(), "new-token\n").expect("written");
    loki.faults(|faults| faults.authorization = Some("Bearer new-token".into()));
    source.read(None, &Default::default(), budget(100)).await.expect("a page with the new token");
    loki.faults(|faults| faults.authorization = Some("Bearer newer".into()));
    let error = source.read(None, &Default::default(), budget(100)).await.expect_err("nobody knows the token");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_long_query_goes_in_a_form() {
    let loki = fake().await;
    let long = format!("{{job=\"app\"}} |= \"{}\"", "x".repeat(5000));
    let source = builder(&loki.url(), &[&long]).build().expect("a source");
    source.read(None, &Default::default(), budget(100)).await.expect("a page");
    let request = loki.requests().remove(0);
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.param("query"), Some(long.as_str()));
}

#[tokio::test]
async fn one_request_is_under_way_at_a_time_and_who_is_briefly_in_trouble_is_asked_again() {
    let loki = fake().await;
    let busy = Fault::Status(429, "too many outstanding requests".into());
    let down = Fault::Status(503, "Service Unavailable".into());
    loki.faults(|faults| faults.next = [busy.clone(), down.clone()].into());
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "x");
    let source = builder(&loki.url(), &[QUERY, r#"{job=~".+"}"#, r#"{job="db"}"#]).build().expect("a source");
    let page = source.read(None, &Default::default(), budget(100)).await.expect("a page");
    assert_eq!((page.lines.len(), page.problems.len(), loki.requests().len()), (1, 0, 5));
    assert_eq!(loki.most_at_once(), 1);
    // Not for ever.
    loki.faults(|faults| faults.next = [busy.clone(), down.clone(), busy, down].into());
    let source = builder(&loki.url(), &[QUERY]).build().expect("a source");
    source.read(None, &Default::default(), budget(100)).await.expect_err("it stays in trouble");
    assert_eq!(loki.requests().len(), 3);
}

#[tokio::test]
async fn a_proxy_is_asked_for_what_lies_behind_it() {
    let loki = fake().await;
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "x");
    let source = builder("http://loki.example:3100", &[QUERY]).proxy(loki.url().into()).build().expect("a source");
    let page = source.read(None, &Default::default(), budget(100)).await.expect("a page");
    assert_eq!(page.lines.len(), 1);
    assert_eq!(loki.requests()[0].header("host"), Some("loki.example:3100"));
}

#[test]
fn what_a_query_does_that_it_should_not_is_known_without_asking() {
    let queries = [QUERY, r#"{job="app"} | json | line_format "{{.msg}}" | drop host"#];
    let source = builder("http://127.0.0.1:9", &queries).build().expect("a source");
    insta::assert_snapshot!(source.remarks().join("\n"), @r#"the query `{job="app"} | json | line_format "{{.msg}}" | drop host` changes lines or labels inside Loki, by `line_format` and `drop`: different lines can become the same one there; leave that out, it is done here"#);
}

#[tokio::test]
async fn doctor_says_what_is_there() {
    let loki = fake().await;
    loki.push("fake", &[("job", "app")], NOW - MINUTE, "x");
    let queries = [QUERY, r#"{job="quiet"}"#, r#"{job="app"} |= nothing"#];
    let source = builder(&loki.url(), &queries).build().expect("a source");
    insta::assert_snapshot!(checks(&source, &loki.url()).await, @r#"
    ok: Loki at LOKI is ready
    ok: it is Loki 3.8.0
    ok: labels without a tenant: job, service_name
    ok: the query `{job="app"}` matches lines of the last hour
    warning: the query `{job="quiet"}` matches no line of the last hour
      hint: a quiet system, or a label that is spelt otherwise: compare with the labels above
    bad: the query `{job="app"} |= nothing`: parse error at line 1, col 16: syntax error: unexpected IDENTIFIER, expecting STRING
      hint: correct the query; Grafana's Explore shows where LogQL is wrong
    "#);
}

#[tokio::test]
async fn doctor_finds_a_wrong_tenant_and_a_loki_that_starts() {
    let loki = fake().await;
    loki.faults(|faults| {
        faults.auth_enabled = true;
        faults.starting = true;
    });
    loki.push("right", &[("job", "app")], NOW - SECOND, "x");
    let source = builder(&loki.url(), &[QUERY]).tenants(vec!["wrong".into()]).build().expect("a source");
    insta::assert_snapshot!(checks(&source, &loki.url()).await, @r#"
    warning: Loki at LOKI is not ready: Ingester not ready: waiting for 15s after being ready
      hint: it is starting; try again in a minute, and look at its log if it stays so
    ok: it is Loki 3.8.0
    warning: Loki has no labels for the tenant `wrong` in the last six hours: no log line came in
      hint: check the tenant's spelling (a wrong one is no error in Loki), and whether the shipper sends to this Loki
    warning: the query `{job="app"}` matches no line of the last hour
      hint: a quiet system, or a label that is spelt otherwise: compare with the labels above
    "#);
    let source = builder(&loki.url(), &[QUERY]).build().expect("a source");
    insta::assert_snapshot!(checks(&source, &loki.url()).await, @r#"
    warning: Loki at LOKI is not ready: Ingester not ready: waiting for 15s after being ready
      hint: it is starting; try again in a minute, and look at its log if it stays so
    ok: it is Loki 3.8.0
    bad: the log source at LOKI refused the request (HTTP 401): no org id
      hint: this Loki wants a tenant, the `X-Scope-OrgID` header: set loki.tenant, or LOKI_TENANT
    "#);
}

#[tokio::test]
async fn doctor_without_a_loki() {
    let source = builder("http://127.0.0.1:9", &[QUERY]).build().expect("a source");
    insta::assert_snapshot!(checks(&source, "http://127.0.0.1:9").await, @r#"
    bad: cannot reach the log source at LOKI: Connection refused (os error 111)
      hint: is Loki running there, and may this machine reach it? `curl URL/ready` asks the same; the URL is Loki's, not Grafana's
    "#);
}

async fn checks(source: &logwarden_loki_source::Loki, url: &str) -> String {
    let checks = source.check(logwarden_core::Timestamp::from_nanos(NOW)).await;
    let lines = checks.into_iter().map(|check| {
        let mark = match check.standing {
            Standing::Good => "ok",
            Standing::Warning => "warning",
            Standing::Bad => "bad",
        };
        let hint = check.hint.map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
        format!("{mark}: {}{hint}", check.text)
    });
    lines.collect::<Vec<_>>().join("\n").replace(url, "LOKI")
}
