// Asks the server once a second, less often when that fails, and not at all while nobody looks.

export const INTERVAL = 1000; // milliseconds from one question to the next
const LONGEST_PAUSE = 15_000;
const PATIENCE = 8_000; // for an answer

// The server does not accept the key; asking again would make the browser ask for another one, each time.
export class WrongKey extends Error {}

export class Poller {
  #ask;
  #tell;
  #timer = null;
  #asking = null; // what ends the question that is under way
  #failures = 0;
  #locked = false;

  // `ask` gets a signal that ends it, and gives a report. `tell` gets {state, report?, error?, retryIn?}; states are
  // "live", "failing", "paused", and "locked" for good.
  constructor(ask, tell) {
    this.#ask = ask;
    this.#tell = tell;
  }

  start() {
    if (this.#locked || this.#timer !== null || this.#asking !== null) return;
    this.#failures = 0;
    this.#poll();
  }

  stop() {
    if (this.#locked) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#asking?.abort();
    this.#asking = null;
    this.#tell({ state: "paused" });
  }

  async #poll() {
    const began = Date.now();
    const asking = this.#asking = new AbortController();
    const patience = setTimeout(() => asking.abort(new Error(`no answer within ${PATIENCE / 1000} s`)), PATIENCE);
    this.#timer = null;
    let pause = INTERVAL;
    try {
      const report = await this.#ask(asking.signal);
      if (this.#asking !== asking) return; // it was stopped meanwhile
      this.#failures = 0;
      this.#tell({ state: "live", report });
    } catch (error) {
      if (this.#asking !== asking) return;
      if (error instanceof WrongKey) {
        this.#locked = true;
        this.#tell({ state: "locked", error });
        return;
      }
      pause = Math.min(LONGEST_PAUSE, INTERVAL * 2 ** this.#failures++);
      this.#tell({ state: "failing", error, retryIn: pause / 1000 });
    } finally {
      clearTimeout(patience);
    }
    this.#asking = null;
    this.#timer = setTimeout(() => this.#poll(), Math.max(0, pause - (Date.now() - began)));
  }
}
