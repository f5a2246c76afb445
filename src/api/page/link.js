// The live connection: opens it, keeps it, and reopens it with growing pauses after a loss.

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
export const TRANSPORT_CHOICES = {
  plain: 'WebSocket',
  ...Object.fromEntries(TRANSPORTS.map((name) => [`sockjs-${name}`, `SockJS ${name}`])),
};

const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 30_000;
/** From the first byte to CONNECTED and all subscriptions. */
const CONNECT_TIMEOUT_MS = 15_000;

/** Close codes after which a retry would only be closed again. */
const FATAL_CODES = new Set([1002, 1007, 1009]);

export class Link {
  state = State.DISCONNECTED;
  /** Called with the state, and with a reason if there is one to show. */
  onstate = () => {};
  /** Called each time a session has all its subscriptions: missed messages can be fetched now. */
  onconnected = () => {};
  /** Destination to handler. */
  queues = {};

  #account;
  #tap;
  #transport = 'plain';
  #session;
  #attempts = 0;
  #timer;
  /** Changes with each attempt, so that events of an abandoned one are ignored. */
  #generation = 0;

  constructor(account, tap) {
    this.#account = account;
    this.#tap = tap;
    account.onrenewed = (token) => this.#refresh(token);
    addEventListener('offline', () => this.#lose('the network is gone'));
    addEventListener('online', () => this.retryNow());
    // A page that was suspended for a while finds its timers late and its connection gone.
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.retryNow());
  }

  open(transport = this.#transport) {
    this.close();
    this.#transport = transport;
    this.#attempts = 0;
    this.#change(State.CONNECTING);
    this.#connect();
  }

  close(words) {
    clearTimeout(this.#timer);
    this.#generation += 1;
    this.#session?.disconnect();
    this.#session = undefined;
    this.#change(State.DISCONNECTED, words);
  }

  /** Ends the pause. */
  retryNow() {
    if (this.state !== State.RECONNECTING || this.#session) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  send(destination, body, headers) {
    if (this.state !== State.CONNECTED) return Promise.reject(new Refusal({ code: 'disconnected', message: 'not connected' }));
    return this.#session.send(destination, body, headers);
  }

  async #connect() {
    const generation = ++this.#generation;
    const current = () => generation === this.#generation;
    if (this.#attempts > 0) this.#change(State.RECONNECTING);
    try {
      const token = await this.#account.fresh();
      if (!current()) return;
      const session = new Session(this.#socket(), { Authorization: `Bearer ${token}` });
      this.#session = session;
      this.#timer = setTimeout(() => session.drop('the server does not answer'), CONNECT_TIMEOUT_MS);
      session.onended = (end) => current() && this.#ended(end);
      session.onconnected = async () => {
        const subscribed = Object.entries(this.queues).map(([destination, handle]) => session.subscribe(destination, handle));
        subscribed.push(session.subscribe('/user/queue/errors', (error, headers) => this.#refused(session, error, headers)));
        // The end of the session rejects these promises, and `onended` reports it.
        await Promise.all(subscribed).then(() => current() && this.#connected(), () => {});
      };
    } catch (refusal) {
      if (current()) this.#lose(refusal.message);
    }
  }

  #socket() {
    if (this.#transport !== 'plain') return new SockJS(`${BASE}/ws`, this.#transport.slice('sockjs-'.length), this.#tap);
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

  /** Replaces the session's token in place; a session that refuses it ends, and reconnects with the new one. */
  #refresh(token) {
    if (this.state === State.CONNECTED) this.send('/app/auth/refresh', { token }).catch(() => {});
  }

  async #ended({ code, reason, error }) {
    this.#session = undefined;
    if (FATAL_CODES.has(code)) return this.close(`the server closed the connection: ${error ?? reason ?? code}`);
    if (code === 1008 && /token/.test(error ?? '')) {
      const generation = ++this.#generation;
      clearTimeout(this.#timer);
      this.#change(State.RECONNECTING);
      // A login that has ended closes this link.
      await this.#account.renew().catch(() => {});
      if (generation !== this.#generation) return;
    }
    this.#lose(error ?? reason);
  }

  /** Waits for half of a pause that doubles each time, plus a random part of the other half, so that clients spread out. */
  #lose(words) {
    if (this.state === State.DISCONNECTED) return;
    clearTimeout(this.#timer);
    this.#generation += 1;
    this.#session?.drop();
    this.#session = undefined;
    const pause = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#connect(), pause);
    this.#change(State.RECONNECTING, words);
  }

  #change(state, words = '') {
    this.state = state;
    this.onstate(state, words);
  }
}
