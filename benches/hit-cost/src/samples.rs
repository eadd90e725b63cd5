//! What bursts cost, and what of it is said.

/// The cost of each burst, in nanoseconds per call, and what is to be said about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// Nanoseconds per call.
    pub(crate) costs: Vec<f64>,
    /// Calls that were made, those that were not timed included.
    pub(crate) calls: u64,
    /// Calls of the second function.
    pub(crate) beside: u64,
    /// Hits that whoever probes has counted, if it can be asked.
    pub(crate) hits: Option<u64>,
    /// How the probe was placed.
    pub(crate) placed: String,
    /// Events that were hit but found no room.
    pub(crate) lost: u64,
}

impl Samples {
    /// Adds those of another round.
    pub(crate) fn merge(&mut self, other: Self) {
        let first = self.costs.is_empty();
        self.costs.extend(other.costs);
        self.calls += other.calls;
        self.beside += other.beside;
        self.hits = match (self.hits, other.hits) {
            (Some(before), Some(hits)) => Some(before + hits),
            (None, hits) if first => hits,
            _ => None,
        };
        self.placed = other.placed;
        self.lost += other.lost;
    }

    /// The cheapest burst: what it costs when nothing disturbs.
    pub(crate) fn min(&self) -> Option<f64> {
        self.costs.iter().copied().min_by(f64::total_cmp)
    }

    /// The burst in the middle; of two, the cheaper.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut costs = self.costs.clone();
        costs.sort_by(f64::total_cmp);
        costs.get(costs.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(costs: &[f64]) -> Samples {
        Samples { costs: costs.to_vec(), ..Samples::default() }
    }

    #[test]
    fn the_median_is_the_middle_burst() {
        assert_eq!(samples(&[9.0, 1.0, 5.0]).median(), Some(5.0));
        assert_eq!(samples(&[9.0, 1.0, 5.0, 2.0]).median(), Some(2.0));
    }

    #[test]
    fn nothing_measured_has_no_median() {
        assert_eq!((samples(&[]).min(), samples(&[]).median()), (None, None));
    }

    #[test]
    fn rounds_are_pooled() {
        let mut all = Samples::default();
        all.merge(Samples { hits: Some(1), calls: 1, ..samples(&[3.0]) });
        all.merge(Samples { placed: "boosted".into(), lost: 2, hits: Some(2), calls: 2, ..samples(&[2.0, 4.0]) });
        assert_eq!((all.min(), all.median(), all.lost), (Some(2.0), Some(3.0), 2));
        assert_eq!((all.calls, all.hits), (3, Some(3)));
    }

    #[test]
    fn hits_are_known_only_if_every_round_knew_them() {
        let mut all = Samples { hits: Some(1), ..samples(&[3.0]) };
        all.merge(samples(&[3.0]));
        assert_eq!(all.hits, None);
    }
}
