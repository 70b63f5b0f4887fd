//! The chart as text: strict, current in `manifests/`, and clear about wrong values.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use testbed::plane::{Plane, PlaneOptions};
use testbed::tools::Tools;

use testbed::install::{helm_args, namespace};

fn helm(args: &[&str]) -> Result<Output> {
    Ok(Command::new(Tools::locate()?.program("helm")).args(args).output()?)
}

fn rendering() -> Result<String> {
    let helm = Tools::locate()?.program("helm");
    let output = Command::new("manifests/render.sh").env("HELM", helm).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_plain_install_is_what_the_chart_says() -> Result<()> {
    let committed = std::fs::read_to_string("manifests/install.yaml")?;
    ensure!(committed == rendering()?, "manifests/install.yaml is old: run `make manifests`");
    Ok(())
}

#[test]
fn the_chart_is_clean_in_each_mode() -> Result<()> {
    for mode in ["certManager", "selfManaged", "bringYourOwn"] {
        let mode = format!("certificates.mode={mode}");
        let bundle = "certificates.caBundle=cGVt";
        let values = ["--set", "clusterName=c1", "--set", &mode, "--set", bundle];
        let lint = helm(&[&["lint", "--strict", "charts/harbinger"], &values[..]].concat())?;
        let said = String::from_utf8_lossy(&lint.stdout);
        ensure!(lint.status.success() && !said.contains("[WARNING]"), "{mode}: {said}");
        let all = ["template", "harbinger", "charts/harbinger", "--include-crds"];
        let shown = helm(&[&all[..], &values[..]].concat())?;
        let text = String::from_utf8_lossy(&shown.stdout);
        let shown = text.matches("kind: CustomResourceDefinition").count();
        ensure!(shown == harbinger::api::crds().len(), "{mode}: {shown} CRDs");
    }
    Ok(())
}

#[test]
fn the_webhook_can_be_had_alone() -> Result<()> {
    let values = ["--set", "clusterName=c1", "--set", "provisioner.enabled=false"];
    let output = helm(&[&["template", "harbinger", "charts/harbinger"], &values[..]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.contains("- name: webhook\n"), "{text}");
    ensure!(!text.contains("- provisioner\n") && !text.contains("intents.sock"), "{text}");
    ensure!(!text.contains("targetPort: metrics,"), "{text}");
    Ok(())
}

#[test]
fn advice_never_blocks_workloads() -> Result<()> {
    let values = ["--set", "clusterName=c1", "--set", "webhook.failurePolicy=Fail"];
    let shown = helm(&[&["template", "harbinger", "charts/harbinger"][..], &values].concat())?;
    let text = String::from_utf8_lossy(&shown.stdout);
    let hooks: Vec<(&str, bool)> = text
        .split("\n- name: ")
        .skip(1)
        .filter_map(|hook| Some((hook.lines().next()?, hook.contains("\n  failurePolicy: Fail\n"))))
        .filter(|(name, _)| name.ends_with(".harbinger.sh"))
        .collect();
    let expected = [
        ("pods.mutate.harbinger.sh", true),
        ("pods.validate.harbinger.sh", true),
        ("workloads.advise.harbinger.sh", false),
    ];
    ensure!(hooks == expected, "{hooks:?}");
    Ok(())
}

#[test]
fn wrong_values_are_refused_with_their_names() -> Result<()> {
    let cases: [(&[&str], &[&str]); 7] = [
        (&[], &["clusterName"]),
        (&["clusterName=c1", "replica=3"], &["additional properties 'replica' not allowed"]),
        (&["clusterName=c1", "replicas=0"], &["/replicas", "minimum: got 0, want 1"]),
        (
            &["clusterName=c1", "webhook.failurePolicy=Maybe"],
            &["/webhook/failurePolicy", "'Ignore', 'Fail'"],
        ),
        (
            &["clusterName=c1", "webhook.timeoutSeconds=30"],
            &["/webhook/timeoutSeconds", "maximum: got 30, want 5"],
        ),
        (&["clusterName=c1", "certificates.mode=vault"], &["/certificates/mode", "'certManager'"]),
        (&["clusterName=c1", "certificates.mode=bringYourOwn"], &["certificates.caBundle"]),
    ];
    for (values, parts) in cases {
        let mut args = vec!["template", "harbinger", "charts/harbinger"];
        args.extend(values.iter().flat_map(|value| ["--set", value]));
        let output = helm(&args)?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{values:?} was taken");
        for part in parts {
            ensure!(message.contains(part), "{values:?}: {part:?} is not in {message}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_takes_every_object() -> Result<()> {
    let plane =
        Plane::start(PlaneOptions { cert_manager: true, ..PlaneOptions::default() }).await?;
    plane.kubectl(&["apply", "--server-side", "-f", "manifests/crds"], "").await?;
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    plane.kubectl(&established, "").await?;
    namespace(&plane).await?;
    let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    plane.kubectl(&apply, &rendering()?.replace("CLUSTER_NAME", "prod")).await?;
    let example = std::fs::read_to_string("manifests/example.yaml")?;
    plane.kubectl(&apply, &example).await?;
    // Any authority will do: the server wants to be able to read it.
    let bundle = STANDARD.encode(plane.ca_pem());
    for mode in ["selfManaged", "bringYourOwn"] {
        let mode = format!("certificates.mode={mode}");
        let args = helm_args("template", &[&mode, &format!("certificates.caBundle={bundle}")]);
        let text = plane.helm(&args.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        plane.kubectl(&apply, &text).await?;
    }
    Ok(())
}
