// The login of this tab: its tokens, and REST calls in its name.

import { Refusal } from './stomp.js';

const KEY = 'tidings.login';
/** An access token is replaced when this share of its life is left, or this many seconds if that is less. */
const RENEW_SHARE = 0.25;
const RENEW_SECONDS = 60;

/** The server's address: beside this page, also below a proxy's path. */
export const BASE = new URL('.', document.baseURI).href.replace(/\/$/, '');

export class Account {
  /** Called with the new token after a renewal, and without one when the login has ended. */
  onrenewed = () => {};
  onended = () => {};
  /** Called for each request and response: `(direction, text)`. */
  tap = () => {};

  #login = JSON.parse(sessionStorage.getItem(KEY) ?? 'null');
  #renewal;
  #timer;

  get user() {
    return this.#login?.user;
  }

  get token() {
    return this.#login?.access;
  }

  /** Asks for a one-time code. */
  requestCode(phone) {
    return this.#fetch('POST', '/auth/otp', { phone });
  }

  async logIn(phone, otp) {
    this.#keep(await this.#fetch('POST', '/auth/login', { phone, otp }));
  }

  /** Logs in with a token from elsewhere, which cannot be renewed here. */
  async useToken(access) {
    const { id } = await this.#fetch('GET', '/users/me', undefined, access);
    this.#store({ user: id, access });
  }

  /** Continues the login from before a reload. */
  resume() {
    if (this.#login) this.#plan();
  }

  /** Ends the login here, and on the server. */
  async logOut() {
    const refreshToken = this.#login?.refresh;
    this.#store(null);
    if (refreshToken) await this.#fetch('POST', '/auth/logout', { refreshToken }).catch(() => {});
  }

  /** A token with some life left, renewed if necessary; `force` when the server has refused the current one. */
  async fresh({ force = false } = {}) {
    if (force || secondsLeft(this.token) < 5) await this.renew();
    return this.token;
  }

  /** A REST call; returns the JSON of its response. Repeated once with a new token if the old one has expired. */
  async call(method, path, body) {
    const token = await this.fresh();
    try {
      return await this.#fetch(method, path, body, token);
    } catch (refusal) {
      if (refusal.code !== 'unauthorized') throw refusal;
      return this.#fetch(method, path, body, await this.fresh({ force: true }));
    }
  }

  /** Takes new tokens for the refresh token. One at a time: a refresh token that is used twice ends the login. */
  renew() {
    this.#renewal ??= this.#renew().finally(() => (this.#renewal = undefined));
    return this.#renewal;
  }

  async #renew() {
    const before = this.#login;
    try {
      if (!before?.refresh) throw new Refusal({ code: 'unauthorized', message: 'the access token has expired' });
      const login = await this.#fetch('POST', '/auth/refresh', { refreshToken: before.refresh });
      if (this.#login !== before) return;
      this.#keep(login);
      this.onrenewed(this.token);
    } catch (refusal) {
      if (refusal.code === 'unauthorized' && this.#login === before && before) {
        this.#store(null);
        this.onended(refusal.message);
      }
      throw refusal;
    }
  }

  #keep({ accessToken, refreshToken, userId }) {
    this.#store({ user: userId, access: accessToken, refresh: refreshToken });
    this.#plan();
  }

  #store(login) {
    clearTimeout(this.#timer);
    this.#login = login;
    if (login) sessionStorage.setItem(KEY, JSON.stringify(login));
    else sessionStorage.removeItem(KEY);
  }

  /** Renews in time, so that the session is never cut by its token's expiry. */
  #plan() {
    const { iat, exp } = claims(this.token);
    const before = Math.min(RENEW_SECONDS, (exp - (iat ?? exp - RENEW_SECONDS)) * RENEW_SHARE);
    const wait = Math.max(0, secondsLeft(this.token) - before);
    // setTimeout takes no more than 2^31 ms.
    this.#timer = setTimeout(() => this.renew().catch(() => this.#planLater()), Math.min(wait * 1_000, 2 ** 31 - 1));
  }

  #planLater() {
    if (this.#login) this.#timer = setTimeout(() => this.renew().catch(() => this.#planLater()), 5_000);
  }

  async #fetch(method, path, body, token) {
    const headers = {};
    if (body) headers['Content-Type'] = 'application/json';
    if (token) headers.Authorization = `Bearer ${token}`;
    this.tap('out', `${method} ${path}`);
    const options = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(15_000) };
    const response = await fetch(BASE + path, options).catch(() => {
      throw new Refusal({ code: 'disconnected', message: 'the server cannot be reached' });
    });
    this.tap('in', `${response.status} ${method} ${path}`);
    if (response.ok) return response.status === 204 ? undefined : response.json();
    const { code, message } = await response.json().catch(() => ({ code: 'internal', message: `status ${response.status}` }));
    throw new Refusal({ code, message, retryAfter: response.headers.get('Retry-After') ?? undefined });
  }
}

function claims(token) {
  try {
    return JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
  } catch {
    return { exp: Infinity };
  }
}

function secondsLeft(token) {
  return claims(token).exp - Date.now() / 1_000;
}
