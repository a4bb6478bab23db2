//! What many measurements come to.

/// The value in the middle, or halfway between the two that are; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => values.get(middle.wrapping_sub(1)..=middle).map_or(0.0, |two| two.iter().sum::<f64>() / 2.0),
        _ => values[middle],
    }
}

/// The smallest of sorted values that at least so many percent are not above; 0 of none.
pub fn nearest_rank<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranks_are_those_of_the_textbook() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([50, 95, 99, 100].map(|percent| nearest_rank(&hundred, percent)), [50, 95, 99, 100]);
        assert_eq!([1, 50, 100].map(|percent| nearest_rank(&[7, 9], percent)), [7, 7, 9]);
        assert_eq!(nearest_rank::<u64>(&[], 95), 0);
    }
}
