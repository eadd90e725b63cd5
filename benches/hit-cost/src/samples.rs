//! What bursts cost, and what of it is said.

/// The cost of each burst, in nanoseconds per call, and what is to be said about them.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    /// Nanoseconds per call.
    pub(crate) costs: Vec<f64>,
    /// How the probe was placed.
    pub(crate) placed: String,
    /// Events that were hit but found no room.
    pub(crate) lost: u64,
}

impl Samples {
    /// Adds those of another round.
    pub(crate) fn merge(&mut self, other: Self) {
        self.costs.extend(other.costs);
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
        let mut all = samples(&[3.0]);
        all.merge(Samples { costs: vec![2.0, 4.0], placed: "boosted".into(), lost: 2 });
        assert_eq!((all.min(), all.median(), all.lost), (Some(2.0), Some(3.0), 2));
    }
}
