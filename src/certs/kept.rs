//! Certificates over the years: when they are renewed, and how one authority follows another.
//!
//! Clients trust what stands in the registrations, and hear of a change a moment later. So an
//! authority is trusted before it signs, and trusted on after another signs:
//! 1. with a third of its life left, the next authority is made, and both are trusted;
//! 2. an hour after that, and with both in the registrations, the next one signs a new serving
//!    certificate;
//! 3. a day after that, which is long after all replicas serve by it, the old one is let go.
//!
//! Where certificates live for less than some days all this is quicker: see [`Pace`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{BACKDATE, CertError, Certificates, Request, authority, issue, renew, validity};

/// The times between the steps. Each is the usual one, or a share of the shortest life that is asked
/// for: the steps of a rotation must fit into a third of an authority's life, and those that wait for
/// a serving certificate's age into the time before it is renewed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks of a replica at what all share: ten minutes.
    pub look: Duration,
    /// How long an authority is trusted before it signs: an hour.
    ahead: SignedDuration,
    /// How long an authority is trusted after another signs: a day.
    after: SignedDuration,
}

impl Pace {
    /// The pace for the lives that are asked for.
    pub fn of(request: &Request) -> Self {
        let shortest = request.ca_lifetime.min(request.serving_lifetime);
        let least = |usual: SignedDuration, share: u32| {
            SignedDuration::try_from(shortest / share).map_or(usual, |life| life.min(usual))
        };
        Self {
            look: Duration::from_mins(10).min(shortest / 48),
            ahead: least(SignedDuration::from_hours(1), 12),
            after: least(SignedDuration::from_hours(24), 6),
        }
    }
}

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
        let pace = Pace::of(request);
        let Certificates { ca, ca_key, certificate, .. } = &self.current;
        let has_ended = |(made, end): (Timestamp, Timestamp)| end <= now || end <= made;
        if life(ca).is_none_or(has_ended) {
            return Ok(Some((Step::Made, Self::make(request)?)));
        }
        // With a third of its life left, or because shorter lives are asked for than when it was made.
        let is_due = |certificate: &str, asked: Duration| {
            life(certificate).is_none_or(|(made, end)| {
                let life = end.duration_since(made);
                end.duration_since(now) <= life / 3 || life.unsigned_abs() > asked
            })
        };
        let age = |certificate: &str| {
            life(certificate).map_or(SignedDuration::MAX, |(made, _)| now.duration_since(made))
        };
        if is_due(certificate, request.serving_lifetime) {
            let current = renew(request, ca, ca_key)?;
            return Ok(Some((Step::Renewed, Self { current, ..self.clone() })));
        }
        match &self.next {
            Some((next, key)) if registered && age(next) >= pace.ahead => {
                let current = renew(request, next, key)?;
                let old = Some(ca.clone());
                Ok(Some((Step::Switched, Self { current, next: None, old })))
            }
            None if self.old.is_some() && age(certificate) >= pace.after => {
                Ok(Some((Step::Forgotten, Self { old: None, ..self.clone() })))
            }
            None if self.old.is_none() && is_due(ca, request.ca_lifetime) => {
                let next = Some(authority(request)?);
                Ok(Some((Step::Announced, Self { next, ..self.clone() })))
            }
            _ => Ok(None),
        }
    }
}

/// When a certificate was made, which is later than it says, and when it ends.
fn life(certificate: &str) -> Option<(Timestamp, Timestamp)> {
    let (from, end) = validity(certificate)?;
    Some((from.checked_add(BACKDATE).ok()?, end))
}

#[cfg(test)]
mod tests {
    use super::super::{CA_LIFETIME, SERVING_LIFETIME, verify};
    use super::*;

    const NAME: &str = "h.ns.svc";

    fn request(now: Timestamp) -> Request {
        Request::new("h", "ns", now)
    }

    fn trusts(kept: &Kept, authorities: &str, now: Timestamp) -> Result<(), String> {
        verify(&kept.current.certificate, authorities.as_bytes(), NAME, now)
    }

    /// Lives of the authority and of serving certificates.
    const LIVES: [(Duration, Duration); 4] = [
        (CA_LIFETIME, SERVING_LIFETIME),
        (Duration::from_hours(12), Duration::from_hours(1)),
        (Duration::from_hours(90 * 24), Duration::from_hours(365 * 24)),
        (Duration::from_secs(24), Duration::from_secs(24)),
    ];

    #[test]
    fn authorities_follow_each_other_without_a_moment_of_distrust() {
        for (ca_lifetime, serving_lifetime) in LIVES {
            let asked = |now| Request { ca_lifetime, serving_lifetime, ..request(now) };
            let mut now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
            let end = now + ca_lifetime * 5 / 2;
            let (pace, shortest) = (Pace::of(&asked(now)), ca_lifetime.min(serving_lifetime));
            let mut kept = Kept::make(&asked(now)).unwrap();
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
                if let Some((step, next)) = kept.step(&asked(now), registered).unwrap() {
                    steps.push(step);
                    kept = next;
                    now += pace.look;
                } else if kept.next.is_some() || kept.old.is_some() {
                    now += pace.ahead;
                } else {
                    // Nothing is due: looks are all alike.
                    now += shortest / 12;
                }
            }
            let rotations: Vec<Step> =
                steps.iter().copied().filter(|step| *step != Step::Renewed).collect();
            let one = [Step::Announced, Step::Switched, Step::Forgotten];
            assert_eq!(rotations, [one, one, one].concat(), "{ca_lifetime:?} {serving_lifetime:?}");
            assert!(steps.contains(&Step::Renewed), "{ca_lifetime:?} {serving_lifetime:?}");
        }
    }

    #[test]
    fn what_lives_longer_than_is_asked_for_is_replaced() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let kept = Kept::make(&request(now)).unwrap();
        assert!(kept.step(&request(now), true).unwrap().is_none());
        let day = Duration::from_hours(24);
        let asked = Request { ca_lifetime: 30 * day, serving_lifetime: 7 * day, ..request(now) };
        let (step, kept) = kept.step(&asked, true).unwrap().unwrap();
        assert_eq!(step, Step::Renewed);
        let (step, kept) = kept.step(&asked, true).unwrap().unwrap();
        assert_eq!(step, Step::Announced);
        // A replica that is not told yet lets it be.
        assert!(kept.step(&request(now), true).unwrap().is_none());
        let later = Request { now: now + day, ..asked };
        let (step, kept) = kept.step(&later, true).unwrap().unwrap();
        assert_eq!(step, Step::Switched);
        let (_, end) = validity(&kept.current.ca).unwrap();
        assert_eq!(end, now + 30 * day);
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
