// sockjs-client as a module; `window.transports` restricts its transports.
const { SockJS, transports } = window;

/** With a single transport, it may take its time on a busy machine. */
function Restricted(url) {
  return new SockJS(url, null, { transports, timeout: 10_000 });
}

export default transports ? Restricted : SockJS;
