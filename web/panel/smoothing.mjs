/** The exponential moving average behind the smoothing slider. */

/**
 * An exponential moving average without a bias towards its beginning (as in Adam): after n values the weights of all values
 * so far sum to 1. A gap stays a gap and is not averaged over; the memory fades across it as across values.
 *
 * @param {readonly (number | null | undefined)[]} values
 * @param {number} weight  of the past, in [0, 1); 0 returns the values
 * @returns {(number | null | undefined)[]}
 */
export function smooth(values, weight) {
  if (weight <= 0) return [...values];
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === undefined) return undefined; // no such point on this curve
    sum *= weight;
    mass *= weight;
    if (value === null) return null;
    sum += (1 - weight) * value;
    mass += 1 - weight;
    return sum / mass;
  });
}

/**
 * The slider's position as a weight: fine near 1, where it matters.
 *
 * @param {number} position  in [0, 1]
 * @param {number} points  of the curve
 */
export function weightAt(position, points) {
  if (position <= 0) return 0;
  const longest = Math.max(points / 8, 2); // values that the average reaches back
  return 1 - 1 / longest ** position;
}
