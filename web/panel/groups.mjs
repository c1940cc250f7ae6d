/** Groups of candidates and evaluations, fetched once and kept for a while. */

/**
 * @typedef {import("./types.mjs").Group} Group
 * @typedef {import("./types.mjs").GroupsAnswer} GroupsAnswer
 * @typedef {import("./types.mjs").GroupIndex} GroupIndex
 * @typedef {import("./types.mjs").EvaluationAnswer} EvaluationAnswer
 */

import { ask, ofRun, Refused } from "./transport.mjs";

const KEPT = 64; // answers

export class Groups {
  /** @param {import("./transport.mjs").Transport} transport */
  constructor(transport) {
    this.transport = transport;
    /** @type {Map<string, Promise<any>>} */
    this.answers = new Map();
  }

  /** The groups of an iteration. @param {string} run @param {number} iteration @returns {Promise<GroupsAnswer>} */
  get(run, iteration) {
    return this.once(ofRun(run, `/groups/${iteration}`));
  }

  /**
   * The groups of an iteration, or null if the run keeps nothing of it.
   *
   * @param {string} run
   * @param {number} iteration
   * @returns {Promise<Group[] | null>}
   */
  async stored(run, iteration) {
    try {
      return (await this.get(run, iteration)).groups;
    } catch (problem) {
      if (problem instanceof Refused && problem.status === 404) return null;
      throw problem;
    }
  }

  /** @param {string} run @param {number} iteration @returns {Promise<EvaluationAnswer>} */
  evaluation(run, iteration) {
    return this.once(ofRun(run, `/evaluations/${iteration}`));
  }

  /** Which iterations have pictures; asked anew each time. @param {string} run @returns {Promise<GroupIndex>} */
  index(run) {
    return ask(this.transport, ofRun(run, "/groups"));
  }

  /** A run that went back does some iterations again. @param {string} run */
  forget(run) {
    const prefix = ofRun(run, "/");
    for (const path of this.answers.keys()) if (path.startsWith(prefix)) this.answers.delete(path);
  }

  /** @param {string} path @returns {Promise<any>} */
  once(path) {
    const kept = this.answers.get(path);
    this.answers.delete(path);
    const answer = kept ?? ask(this.transport, path);
    this.answers.set(path, answer); // the last one asked for comes last
    if (!kept) answer.catch(() => this.answers.delete(path));
    if (this.answers.size > KEPT) this.answers.delete(/** @type {string} */ (this.answers.keys().next().value));
    return answer;
  }
}
