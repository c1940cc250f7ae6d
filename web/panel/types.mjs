/**
 * What the server sends, as types. There is nothing to run in here.
 *
 * @typedef {object} Run
 * @property {string} id  name of the run's folder
 * @property {string} title  a person's name for it; may be empty
 * @property {string} state  "running", "paused", "complete", "interrupted", "waiting: why", "failed: why", ...
 * @property {boolean} live  somebody is working on it
 * @property {boolean} controllable  the very server that answers is working on it
 * @property {number} iteration  iterations done
 * @property {number} iterations  iterations planned
 * @property {number | null} started  unix seconds
 * @property {number | null} updated  unix seconds
 * @property {string} model
 * @property {string[]} trained  names of the rewards that are trained on
 * @property {string[]} held_out  names of those that are only looked at
 * @property {string} path
 *
 * @typedef {{ iteration: number, message: string }} LogLine
 * @typedef {{ iteration: number, learning_rate?: number, strength?: number }} Change
 * @typedef {{ width?: number, height?: number }} Sampling
 * @typedef {{ group_size?: number, strength?: number }} Grpo
 *
 * @typedef {{ above: number, most: number }} Limits
 *
 * @typedef {object} Settings  what the panel reads of a run's settings
 * @property {Sampling} [sampling]
 * @property {Grpo} [grpo]
 * @property {{ learning_rate?: number }} [optimizer]
 *
 * @typedef {object} Extra
 * @property {Settings} settings
 * @property {string[]} prompts
 * @property {string[]} metrics  names of the curves there are
 * @property {Change[]} changes
 * @property {LogLine[]} log
 * @property {{ learning_rate: Limits, strength: Limits }} limits  of what a person may change
 * @property {Strengths | null} strengths  null if they were not measured
 *
 * @typedef {Record<"after" | "difference" | "standard_error", number | null>} Rise
 * @typedef {{ strength: number | null, rewards: Record<string, Rise> }} AtStrength
 * @typedef {object} Strengths  of the LoRA, when it had so many iterations
 * @property {number | null} recommended
 * @property {number | null} pictures
 * @property {number | null} iteration
 * @property {AtStrength[]} strengths
 *
 * @typedef {Run & Extra} Details
 *
 * @typedef {object} Curve  down-sampled; null if a bucket holds no value
 * @property {number[]} x  first iteration of each bucket, a multiple of `step`
 * @property {(number | null)[]} mean
 * @property {(number | null)[]} [low]
 * @property {(number | null)[]} [high]
 * @property {number} step  iterations in one bucket
 *
 * @typedef {Record<string, Curve>} Curves
 * @typedef {{ iteration: number, curves: Curves }} CurvesAnswer
 *
 * @typedef {object} Candidate
 * @property {number} candidate
 * @property {number | null} advantage
 * @property {boolean} anchor
 * @property {boolean} tile  its picture is stored
 * @property {Record<string, number | null>} scores
 *
 * @typedef {object} Group
 * @property {number} slot
 * @property {string} prompt
 * @property {string} seed  as it has 63 bits, and a number only 53
 * @property {boolean} base  the picture of the base noise is stored
 * @property {boolean} gone  its pictures were stored and are no longer kept
 * @property {Candidate[]} candidates
 * @property {(number | null)[][] | null} distances
 * @property {[number, number][] | null} points
 * @property {[number, number] | null} explained  shares of the variance
 *
 * @typedef {{ iteration: number, groups: Group[] }} GroupsAnswer
 * @typedef {object} GroupIndex
 * @property {number | null} first  iteration with candidates
 * @property {number | null} last
 * @property {number[]} tiles  iterations with pictures
 * @property {number[]} evaluations
 * @property {number} gone  how many iterations had pictures that are no longer kept
 *
 * @typedef {{ number: number, prompt: string, seed: string, scores: Record<string, number | null> }} EvaluationPicture
 * @typedef {{ iteration: number, pictures: EvaluationPicture[] }} EvaluationAnswer
 *
 * @typedef {object} Finding
 * @property {string} check
 * @property {"warning" | "problem"} severity
 * @property {string} evidence
 * @property {string} advice
 * @property {number} since  iteration
 *
 * @typedef {object} Message  a live update
 * @property {number} version
 * @property {"started" | "iteration" | "state" | "saved" | "changed" | "evaluated" | "finished"} type
 * @property {string} run
 * @property {number} iteration  of "iteration": its number, from 0; else iterations done
 * @property {Record<string, number | null>} [metrics]
 * @property {string} [state]
 *
 * @typedef {"connecting" | "live" | "lost"} Connection
 */

export {};
