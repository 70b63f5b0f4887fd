//! A small client of the query protocol, for seeding and for looking at the emulator directly. It
//! signs nothing: moto reads only the service and the region out of the signature.

use anyhow::{Result, bail};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};

use super::xml::Element;
use crate::http::{self, Reply};

/// Speaks to one endpoint in the name of one account.
#[derive(Clone, Debug)]
pub struct AwsClient {
    url: String,
    account: String,
    region: String,
}

impl AwsClient {
    pub fn new(url: &str, account: &str, region: &str) -> Self {
        Self { url: url.to_owned(), account: account.to_owned(), region: region.to_owned() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn account(&self) -> &str {
        &self.account
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// Sends a query request; an answer other than 200 is an error.
    pub async fn query(
        &self,
        service: &str,
        action: &str,
        params: &[(&str, &str)],
    ) -> Result<Element> {
        let reply = self.send(service, action, params).await?;
        if reply.status != 200 {
            bail!("{action}: {} {}", reply.status, reply.text());
        }
        Element::parse(&reply.text())
    }

    /// Sends a query request and returns whatever is answered.
    pub async fn send(
        &self,
        service: &str,
        action: &str,
        params: &[(&str, &str)],
    ) -> Result<Reply> {
        let version = if service == "iam" { "2010-05-08" } else { "2016-11-15" };
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("Action", action), ("Version", version)])
            .extend_pairs(params)
            .finish();
        let request = self
            .request(service)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
            .body(Full::from(body))?;
        http::send(request).await
    }

    /// Sends a JSON request, such as `AmazonSSM.GetParameter`, and returns whatever is answered.
    pub async fn send_json(
        &self,
        service: &str,
        target: &str,
        body: &serde_json::Value,
    ) -> Result<Reply> {
        let request = self
            .request(service)
            .header(CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(Full::from(body.to_string()))?;
        http::send(request).await
    }

    fn request(&self, service: &str) -> hyper::http::request::Builder {
        let scope = format!("test/20260101/{}/{service}/aws4_request", self.region);
        Request::post(format!("{}/", self.url)).header("x-moto-account-id", &self.account).header(
            AUTHORIZATION,
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"),
        )
    }
}
