// The live connection: opens it, keeps it, and opens it anew with growing pauses when it is lost.

import { BASE } from './account.js';
import { SockJS, TRANSPORTS } from './sockjs.js';
import { Refusal, Session } from './stomp.js';

export const State = {
  CONNECTING: 'connecting',
  CONNECTED: 'connected',
  RECONNECTING: 'reconnecting',
  DISCONNECTED: 'disconnected',
};

/** The choices of the page: a plain WebSocket, or SockJS over each of its transports. */
export const WAYS = { plain: 'WebSocket', ...Object.fromEntries(TRANSPORTS.map((name) => [`sockjs-${name}`, `SockJS ${name}`])) };

const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 30_000;
/** From the first byte to CONNECTED and all subscriptions. */
const PATIENCE_MS = 15_000;

/** Close codes after which the same client would only be closed again. */
const HOPELESS = new Set([1002, 1007, 1009]);

export class Link {
  state = State.DISCONNECTED;
  /** Called with the state and a sentence on it, when there is one to say. */
  onstate = () => {};
  /** Each time that a session stands and hears everything: what was missed can be asked for now. */
  onconnected = () => {};
  /** Destination to handler. */
  queues = {};

  #account;
  #tap;
  #way = 'plain';
  #session;
  #attempts = 0;
  #timer;
  /** Changes with each attempt, so that what an abandoned one still says is not heard. */
  #turn = 0;

  constructor(account, tap) {
    this.#account = account;
    this.#tap = tap;
    account.onrenewed = (token) => this.#refresh(token);
    addEventListener('offline', () => this.#lose('the network is gone'));
    addEventListener('online', () => this.hurry());
    // A page that was put aside for a while finds its timers late and its connection gone.
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.hurry());
  }

  open(way = this.#way) {
    this.close();
    this.#way = way;
    this.#attempts = 0;
    this.#change(State.CONNECTING);
    this.#connect();
  }

  close(words) {
    clearTimeout(this.#timer);
    this.#turn += 1;
    this.#session?.disconnect();
    this.#session = undefined;
    this.#change(State.DISCONNECTED, words);
  }

  /** Does not wait for the pause to end. */
  hurry() {
    if (this.state !== State.RECONNECTING || this.#session) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  send(destination, body, headers) {
    if (this.state !== State.CONNECTED) return Promise.reject(new Refusal({ code: 'disconnected', message: 'not connected' }));
    return this.#session.send(destination, body, headers);
  }

  async #connect() {
    const turn = ++this.#turn;
    const current = () => turn === this.#turn;
    if (this.#attempts > 0) this.#change(State.RECONNECTING);
    try {
      const token = await this.#account.fresh();
      if (!current()) return;
      const session = new Session(this.#socket(), { Authorization: `Bearer ${token}` });
      this.#session = session;
      this.#timer = setTimeout(() => session.drop('the server does not answer'), PATIENCE_MS);
      session.onended = (end) => current() && this.#ended(end);
      session.onconnected = async () => {
        const subscribed = Object.entries(this.queues).map(([destination, handle]) => session.subscribe(destination, handle));
        subscribed.push(session.subscribe('/user/queue/errors', (error, headers) => this.#refused(session, error, headers)));
        // What ends the session breaks these promises, and is told by `onended`.
        await Promise.all(subscribed).then(() => current() && this.#connected(), () => {});
      };
    } catch (refusal) {
      if (current()) this.#lose(refusal.message);
    }
  }

  #socket() {
    if (this.#way !== 'plain') return new SockJS(`${BASE}/ws`, this.#way.slice('sockjs-'.length), this.#tap);
    const tap = this.#tap;
    const socket = new WebSocket(`${BASE.replace(/^http/, 'ws')}/ws`, ['v12.stomp']);
    socket.addEventListener('message', ({ data }) => tap('in', data));
    return Object.assign(socket, {
      send(text) {
        if (socket.readyState !== WebSocket.OPEN) return;
        tap('out', text);
        WebSocket.prototype.send.call(socket, text);
      },
    });
  }

  #connected() {
    clearTimeout(this.#timer);
    this.#attempts = 0;
    this.#change(State.CONNECTED);
    this.onconnected();
  }

  #refused(session, { code, message, receipt }, headers) {
    session.refuse(receipt, new Refusal({ code, message, retryAfter: headers['retry-after'] }));
  }

  /** The session's token is replaced in place; a session that takes none ends by itself and comes back with the new one. */
  #refresh(token) {
    if (this.state === State.CONNECTED) this.send('/app/auth/refresh', { token }).catch(() => {});
  }

  async #ended({ code, reason, error }) {
    this.#session = undefined;
    if (HOPELESS.has(code)) return this.close(`the server closed the connection: ${error ?? reason ?? code}`);
    if (code === 1008 && /token/.test(error ?? '')) {
      const turn = ++this.#turn;
      clearTimeout(this.#timer);
      this.#change(State.RECONNECTING);
      // A login that has ended closes this link.
      await this.#account.renew().catch(() => {});
      if (turn !== this.#turn) return;
    }
    this.#lose(error ?? reason);
  }

  /** Waits for half of a pause that doubles each time, and for a random part of the other half: not all come at once. */
  #lose(words) {
    if (this.state === State.DISCONNECTED) return;
    clearTimeout(this.#timer);
    this.#turn += 1;
    this.#session?.drop();
    this.#session = undefined;
    const pause = Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#connect(), pause);
    this.#change(State.RECONNECTING, words);
  }

  #change(state, words = '') {
    this.state = state;
    this.onstate(state, words);
  }
}
