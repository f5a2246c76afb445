// sockjs-client as a module; with `window.transports` it is held to these.
const { SockJS, transports } = window;

/** With no other transport to turn to, it has time on a busy machine. */
function Restricted(url) {
  return new SockJS(url, null, { transports, timeout: 10_000 });
}

export default transports ? Restricted : SockJS;
