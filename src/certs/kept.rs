//! Certificates over the years: when they are renewed, and how one authority follows another.
//!
//! Clients trust what stands in the registrations, and hear of a change a moment later. So an
//! authority is trusted before it signs, and trusted on after another signs:
//! 1. with a third of its life left, the next authority is made, and both are trusted;
//! 2. an hour after that, and with both in the registrations, the next one signs a new serving
//!    certificate;
//! 3. a day after that, which is long after all replicas serve by it, the old one is let go.

use jiff::{SignedDuration, Timestamp};

use super::{BACKDATE, CertError, Certificates, Request, authority, issue, renew, validity};

/// How long an authority is trusted before it signs.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// How long an authority is trusted after another signs.
const AFTER: SignedDuration = SignedDuration::from_hours(24);

/// What replicas share of certificates.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The authority that signs, and the serving certificate.
    pub current: Certificates,
    /// Certificate and key of the authority that will sign next.
    pub next: Option<(String, String)>,
    /// Certificate of the authority that signed before.
    pub old: Option<String>,
}

/// What became of certificates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Everything is new: nothing that was trusted is in force any more.
    Made,
    /// The serving certificate is new.
    Renewed,
    /// Another authority is trusted.
    Announced,
    /// It signs now.
    Switched,
    /// The one before is let go.
    Forgotten,
}

impl Kept {
    /// Makes an authority and a serving certificate.
    pub fn make(request: &Request) -> Result<Self, CertError> {
        Ok(Self { current: issue(request)?, next: None, old: None })
    }

    /// The authorities to trust, as PEM.
    pub fn trusted(&self) -> String {
        let next = self.next.iter().map(|(certificate, _)| certificate);
        let others: String = next.chain(&self.old).map(String::as_str).collect();
        format!("{}{others}", self.current.ca)
    }

    /// The next step, if it is time for one. `registered` says whether the registrations hold what
    /// [`Self::trusted`] says.
    pub fn step(
        &self,
        request: &Request,
        registered: bool,
    ) -> Result<Option<(Step, Self)>, CertError> {
        let now = request.now;
        let Certificates { ca, ca_key, certificate, .. } = &self.current;
        if left(ca, now).is_none_or(|left| left <= 0.0) {
            return Ok(Some((Step::Made, Self::make(request)?)));
        }
        let is_due =
            |certificate: &str| left(certificate, now).is_none_or(|left| left <= 1.0 / 3.0);
        let age = |certificate: &str| age(certificate, now).unwrap_or(AFTER);
        if is_due(certificate) {
            let current = renew(request, ca, ca_key)?;
            return Ok(Some((Step::Renewed, Self { current, ..self.clone() })));
        }
        match &self.next {
            Some((next, key)) if registered && age(next) >= AHEAD => {
                let current = renew(request, next, key)?;
                let old = Some(ca.clone());
                Ok(Some((Step::Switched, Self { current, next: None, old })))
            }
            None if self.old.is_some() && age(certificate) >= AFTER => {
                Ok(Some((Step::Forgotten, Self { old: None, ..self.clone() })))
            }
            None if self.old.is_none() && is_due(ca) => {
                let next = Some(authority(request)?);
                Ok(Some((Step::Announced, Self { next, ..self.clone() })))
            }
            _ => Ok(None),
        }
    }
}

/// Share of a certificate's life that is left.
fn left(certificate: &str, now: Timestamp) -> Option<f64> {
    let (from, until) = validity(certificate)?;
    let life = until.duration_since(from).as_secs_f64();
    (life > 0.0).then(|| until.duration_since(now).as_secs_f64() / life)
}

/// Time since a certificate was made.
fn age(certificate: &str, now: Timestamp) -> Option<SignedDuration> {
    let (from, _) = validity(certificate)?;
    Some(now.duration_since(from) - SignedDuration::try_from(BACKDATE).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::verify;
    use super::*;

    const NAME: &str = "h.ns.svc";

    fn request(now: Timestamp) -> Request {
        Request::new("h", "ns", now)
    }

    fn trusts(kept: &Kept, authorities: &str, now: Timestamp) -> Result<(), String> {
        verify(&kept.current.certificate, authorities.as_bytes(), NAME, now)
    }

    #[test]
    fn authorities_follow_each_other_without_a_moment_of_distrust() {
        let mut now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let end: Timestamp = "2051-03-01T00:00:00Z".parse().unwrap();
        let mut kept = Kept::make(&request(now)).unwrap();
        // What API servers trust: they read the registrations one look later than they are written.
        let (mut written, mut read) = (kept.trusted(), kept.trusted());
        // Another replica serves what it read one look ago.
        let mut other = kept.clone();
        let mut steps = Vec::new();
        while now < end {
            trusts(&kept, &read, now).unwrap();
            trusts(&other, &read, now).unwrap();
            read.clone_from(&written);
            other = kept.clone();
            let registered = written == kept.trusted();
            written = kept.trusted();
            if let Some((step, next)) = kept.step(&request(now), registered).unwrap() {
                steps.push(step);
                kept = next;
                now += SignedDuration::from_mins(10);
            } else {
                // Nothing is due: the looks of a month are all alike, except beside a rotation.
                let rotates = kept.next.is_some() || kept.old.is_some();
                now += SignedDuration::from_hours(if rotates { 1 } else { 30 * 24 });
            }
        }
        let rotations: Vec<Step> =
            steps.iter().copied().filter(|step| *step != Step::Renewed).collect();
        let one = [Step::Announced, Step::Switched, Step::Forgotten];
        assert_eq!(rotations, [one, one, one].concat());
        assert!(steps.len() > 40, "serving certificates are renewed too: {}", steps.len());
    }

    #[test]
    fn nothing_signs_before_it_is_trusted_and_nothing_is_forgotten_early() {
        let born: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let after = |hours| born + SignedDuration::from_hours(hours);
        let mut kept = Kept::make(&request(born)).unwrap();
        let late = 10 * 365 * 24 * 2 / 3 + 1;
        kept.current =
            renew(&request(after(late)), &kept.current.ca, &kept.current.ca_key).unwrap();
        assert!(kept.step(&request(after(late - 48)), true).unwrap().is_none());
        let (step, kept) = kept.step(&request(after(late)), true).unwrap().unwrap();
        assert_eq!((step, kept.trusted().matches("BEGIN").count()), (Step::Announced, 2));
        // Too early, and not before the registrations say so.
        assert!(kept.step(&request(after(late)), true).unwrap().is_none());
        assert!(kept.step(&request(after(late + 1)), false).unwrap().is_none());
        let (step, kept) = kept.step(&request(after(late + 1)), true).unwrap().unwrap();
        assert_eq!((step, kept.trusted().matches("BEGIN").count()), (Step::Switched, 2));
        assert!(kept.step(&request(after(late + 24)), true).unwrap().is_none());
        let (step, kept) = kept.step(&request(after(late + 25)), true).unwrap().unwrap();
        assert_eq!((step, kept.trusted().matches("BEGIN").count()), (Step::Forgotten, 1));
        assert!(kept.step(&request(after(late + 26)), true).unwrap().is_none());
        trusts(&kept, &kept.trusted(), after(late + 26)).unwrap();
    }

    #[test]
    fn what_has_ended_is_made_anew() {
        let born: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let now: Timestamp = "2040-03-01T00:00:00Z".parse().unwrap();
        let kept = Kept::make(&request(born)).unwrap();
        let (step, kept) = kept.step(&request(now), false).unwrap().unwrap();
        assert_eq!(step, Step::Made);
        trusts(&kept, &kept.trusted(), now).unwrap();
    }
}
