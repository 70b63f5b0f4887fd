//! Windows: PowerShell that calls the image's own bootstrap script.

use super::al2::kubelet_arguments;
use super::{Node, UserDataError};

/// Where EKS' images keep the script.
const SCRIPT: &str = r"$env:ProgramFiles\Amazon\EKS\Start-EKSBootstrap.ps1";

pub(super) fn text(node: &Node<'_>) -> Result<String, UserDataError> {
    let custom = node.custom.unwrap_or_default().trim();
    if custom.to_ascii_lowercase().contains("powershell>") {
        return Err(UserDataError::invalid(
            "spec.userData of Windows nodes holds commands of PowerShell without the <powershell> \
             tags; take them off",
        ));
    }
    let cluster = node.cluster;
    let mut arguments = vec![
        format!("-EKSClusterName {}", quoted(&cluster.cluster_name)),
        format!("-APIServerEndpoint {}", quoted(&cluster.cluster_endpoint)),
    ];
    if !cluster.ca_bundle.is_empty() {
        arguments.push(format!("-Base64ClusterCA {}", quoted(&cluster.ca_bundle)));
    }
    arguments.push(format!("-KubeletExtraArgs {}", quoted(&kubelet_arguments(node))));
    if let Some(dns) = node.dns().first() {
        arguments.push(format!("-DNSClusterIP {}", quoted(dns)));
    }
    let custom = if custom.is_empty() { String::new() } else { format!("{custom}\n") };
    Ok(format!("<powershell>\n{custom}& \"{SCRIPT}\" {}\n</powershell>\n", arguments.join(" ")))
}

/// A word of PowerShell in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
